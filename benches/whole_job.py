#!/usr/bin/env python3
"""The whole job beside what a team would glue of well-known parts: the same requests, users, ads and weights.

A market, a model trained as cluster-config/single.toml says and a node of its own; beside it Redis, onnxruntime, hnswlib and uvicorn with a worker a core
(benches/peers/whole_job.py), its search list as long as it takes to find what Turret finds, or faiss's flat index where none does. Both stay up; in rounds one after the other
is asked at fixed rates, and at rising ones until it bears no more. Prints a table and writes it as JSON; must run by a Python that has
the peer's packages. Usage: benches/whole_job.py TURRET OUT.json [ADS [SECONDS [ROUNDS]]]
"""

import json, os, pathlib, statistics, subprocess, sys, tempfile, time, urllib.request

import numpy as np
import pyarrow.parquet as pq
import redis

from serving import HTTP, Program, await_, commit, config, machine, report, rows

OUT = pathlib.Path(sys.argv[2])
ADS, SECONDS, ROUNDS = (int(sys.argv[at]) if len(sys.argv) > at else default for at, default in ((3, 200_000), (4, 8), (5, 3)))
PEER = pathlib.Path(__file__).parent / "peers/whole_job.py"
PEER_PORT, REDIS_PORT = 7143, 7144
USERS, REQUESTS, K = 20_000, 20_000, 100
LISTS = [100, 110, 125, 150, 175, 200, 250, 300, 400, 600, 1000]
# Requests whose answers are compared with an exact search.
JUDGED = 300
FIXED = [50, 200, 400]
RATES = [50, 100, 200, 300, 400, 500, 600, 800, 1000, 1250, 1500, 2000, 2500, 3000, 4000, 5000, 6000, 8000]
# What a rate is borne by: all requests are answered in full, these of a hundred within so many microseconds.
BORNE_P99_US = 20_000


def bodies(market: pathlib.Path) -> list[dict]:
    def body(row: dict) -> dict:
        context = {"subject": {"interests": row["subject_interests"]}} if row["subject_interests"] else {}
        context |= {"query": row["query"]} if row["query"] else {}
        return {"user_id": row["user_id"], "surface": row["surface"], "k": K} | ({"context": context} if context else {})

    return [body(row) for row in pq.read_table(market / "requests.parquet").slice(0, REQUESTS).to_pylist()]


def ask(http: str, body: dict) -> list[str]:
    request = urllib.request.Request(f"http://{http}/v1/candidates:retrieve", json.dumps(body).encode(), {"content-type": "application/json"})
    return [candidate["ad_id"] for candidate in json.load(urllib.request.urlopen(request))["candidates"]]


def cpu_s(pid: int) -> float:
    """Of a process and all below it."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    tasks = pathlib.Path(f"/proc/{pid}/task").glob("*/children")
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_s(int(child)) for task in tasks for child in task.read_text().split())


def memory_mb(pid: int) -> float:
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    own = int(status.partition("VmRSS:")[2].split()[0]) / 1024
    tasks = pathlib.Path(f"/proc/{pid}/task").glob("*/children")
    return own + sum(memory_mb(int(child)) for task in tasks for child in task.read_text().split())


class System:
    def __init__(self, http: str, processes: list[subprocess.Popen]):
        self.http, self.pids = http, [process.pid for process in processes]

    def at(self, turret: Program, rate: float, seconds: float) -> dict:
        before = sum(map(cpu_s, self.pids))
        told = report(turret.load(rate, seconds, self.http))
        told["cpu_us"] = (sum(map(cpu_s, self.pids)) - before) * 1e6 / max(told["answered"], 1)
        return told

    def borne(self, turret: Program) -> int:
        """The highest of `RATES` that it bears."""
        best = 0
        for rate in RATES:
            told = self.at(turret, rate, 3)
            if told["answered"] < told["sent"] + told["dropped"] or told["degraded"] or told["latency_us"]["p99"] > BORNE_P99_US:
                break
            best = rate
        return best


def judge(out: pathlib.Path, asked: list[dict]) -> tuple[list[set[str]], object, np.ndarray]:
    """What an exact search finds for each request; the peer's worker, and its query embeddings."""
    sys.path.insert(0, str(PEER.parent))
    import whole_job

    os.environ |= {"WHOLE_JOB_DIR": str(out), "WHOLE_JOB_REDIS": str(REDIS_PORT), "WHOLE_JOB_EF": str(LISTS[0])}
    app, store, vectors = whole_job.App(), redis.Redis(port=REDIS_PORT), np.load(out / "vectors.npy")
    queries = np.concatenate([app.query(store.get(f"user:{body['user_id']}"), body.get("context")) for body in asked])
    best = np.argpartition(-queries @ vectors.T, K, axis=1)[:, :K]
    return [{app.ads[row] for row in rows} for rows in best], app, queries


def recall(found: list[list[str]], truth: list[set[str]]) -> float:
    return sum(len(set(ads) & best) for ads, best in zip(found, truth)) / (K * len(truth))


def measure(scratch: pathlib.Path, started: list[subprocess.Popen]) -> dict:
    say = lambda text: print(text, file=sys.stderr, flush=True)
    turret = Program(sys.argv[1], scratch / "requests.ndjson")
    say(f"a market of {ADS} ads, and a model")
    turret("synth", scratch / "market", "--ads", ADS, "--users", USERS)
    path = config(scratch / "node.toml", data_dir=scratch, generations=scratch / "generations", models=scratch / "models",
                  dir=scratch / "market")
    turret("train", "--config", path, "--only", "contextual")
    published = json.loads(turret("publish", "--config", path, "--json"))
    asked = bodies(scratch / "market")
    turret.requests.write_text("".join(json.dumps(body) + "\n" for body in asked))

    say("the peer: embeddings, states, index")
    quiet = ["--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "warning"]
    started.append(subprocess.Popen(["redis-server", "--port", str(REDIS_PORT), *quiet], cwd=scratch))
    await_("Redis answers", lambda: redis_answers())
    model = json.loads((scratch / "models/contextual/model.json").read_text())
    given = {
        "market": str(scratch / "market"), "weights": str(scratch / "models/contextual/tensors.safetensors"),
        "cut_ms": model["split"]["temporal"]["cut_ms"],
        "description": json.loads(turret("model", "tensors", "--config", path, "--kind", "contextual", "--json")),
    }
    subprocess.run([sys.executable, PEER, "prepare", scratch, str(REDIS_PORT)], input=json.dumps(given), text=True, check=True)

    say("both are asked the same")
    started.append(turret.serve(path, scratch / "node.log"))
    ours = System(HTTP, started[-1:])
    truth, app, queries = judge(scratch, asked[:JUDGED])
    our_recall = recall([ask(HTTP, body) for body in asked[:JUDGED]], truth)
    for ef in LISTS:
        app.index.set_ef(ef)
        found = [[app.ads[row] for row in rows] for rows in app.index.knn_query(queries, K)[0].tolist()]
        if recall(found, truth) >= our_recall - 0.001:
            break
    else:
        # What no list finds, faiss's flat index does.
        ef = 0
    http, workers = f"127.0.0.1:{PEER_PORT}", os.cpu_count()
    command = [sys.executable, PEER, "serve", scratch, PEER_PORT, REDIS_PORT, workers, ef]
    started.append(subprocess.Popen(list(map(str, command))))
    await_("the peer is ready", lambda: urllib.request.urlopen(f"http://{http}/readyz").status == 200)
    # Every worker, not only the first.
    time.sleep(5)
    theirs = System(http, [started[0], started[-1]])
    their_recall = recall([ask(http, body) for body in asked[:JUDGED]], truth)
    say(f"recall@{K}: Turret {our_recall:.4f}, the peer {their_recall:.4f} with {f'a list of {ef}' if ef else 'an exact scan'}")

    systems = {"turret": ours, "peer": theirs}
    figures: dict = {name: {"recall": found, "fixed": {rate: [] for rate in FIXED}, "rate_borne": []}
                     for name, found in (("turret", our_recall), ("peer", their_recall))}
    for name, system in systems.items():
        system.at(turret, FIXED[0], 3)  # to warm up
    for turn in range(ROUNDS):
        say(f"round {turn + 1} of {ROUNDS}")
        for rate in FIXED:
            for name, system in systems.items():
                figures[name]["fixed"][rate].append(system.at(turret, rate, SECONDS))
        for name, system in systems.items():
            figures[name]["rate_borne"].append(system.borne(turret))
    for name, system in systems.items():
        figures[name]["memory_mb"] = sum(map(memory_mb, system.pids))
    # The exact answer is the peer's model's: that both agree is a test of both.
    return figures | {"peer_list": ef, "peer_workers": workers, "ads": len(app.ads), "generation_recall": published.get("manifest", published).get("recall")}


def redis_answers() -> bool:
    try:
        return redis.Redis(port=REDIS_PORT).ping()
    except redis.exceptions.ConnectionError:
        return False


def main() -> None:
    started: list[subprocess.Popen] = []
    pathlib.Path("target/tmp").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir="target/tmp") as scratch:
        try:
            figures = measure(pathlib.Path(scratch).resolve(), started)
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait()
    head = {"command": f"benches/whole_job.py {' '.join(sys.argv[1:])}", "commit": commit(),
            "machine": machine(), "users": USERS, "k": K, "seconds": SECONDS}
    of_round = lambda one: {"cpu_us": one["cpu_us"], "p50_us": one["latency_us"]["p50"], "p99_us": one["latency_us"]["p99"]}
    at_rate = {f"{name} at {rate} requests/s": [of_round(one) for one in figures[name]["fixed"][rate]]
               for name in ("turret", "peer") for rate in FIXED}
    OUT.write_text(json.dumps(head | figures | {"rows": rows(at_rate)}, indent=1) + "\n")
    median = lambda rounds, of: statistics.median(of(one) for one in rounds)
    print("| | recall@100 | requests/s borne, each round | memory, MB |\n|---|---|---|---|")
    for name in ("turret", "peer"):
        one = figures[name]
        print(f"| {name} | {one['recall']:.4f} | {', '.join(map(str, one['rate_borne']))} | {one['memory_mb']:.0f} |")
    print("\n| requests/s | | p50, µs | p99, µs | CPU of a request, µs | unanswered |\n|---|---|---|---|---|---|")
    for rate in FIXED:
        for name in ("turret", "peer"):
            rounds = figures[name]["fixed"][rate]
            latency = lambda key: median(rounds, lambda one: one["latency_us"][key])
            lost = sum(one["sent"] + one["dropped"] - one["answered"] for one in rounds)
            print(f"| {rate} | {name} | {latency('p50'):.0f} | {latency('p99'):.0f} | {median(rounds, lambda one: one['cpu_us']):.0f} | {lost} |")


main()
