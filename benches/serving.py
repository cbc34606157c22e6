"""What the benchmarks of a serving node share: a configuration of their own, the program, its load, and waiting."""

import json, os, pathlib, platform, random, statistics, subprocess, time, urllib.request

HTTP, ADMIN = "127.0.0.1:7141", "127.0.0.1:7241"
RATES = [100, 250, 500, 750, 1000, 1500, 2000, 3000, 4000, 6000, 8000, 10000, 12000, 14000, 16000, 20000, 24000, 32000]
# What a rate is borne by: all requests are answered, these of a hundred within so many microseconds.
BORNE_P99_US = 20_000
# An encoder of the usual size, over full histories.
USUAL = {"layers": 2, "heads": 4, "feed_forward": 256, "history_length_max": 100}


def config(path: pathlib.Path, more: str = "", **keys: object) -> pathlib.Path:
    """cluster-config/single.toml on ports of its own, with other values of `keys`, and `more` behind it."""
    lines = pathlib.Path("cluster-config/single.toml").read_text().splitlines()
    for key, value in keys.items():
        assert any(line.startswith(f"{key} = ") for line in lines), key
        lines = [f"{key} = {json.dumps(value, default=str)}" if line.startswith(f"{key} = ") else line for line in lines]
    text = "\n".join(lines).replace("127.0.0.1:7101", HTTP).replace("127.0.0.1:7201", ADMIN)
    path.write_text(text + more)
    return path


class Program:
    def __init__(self, path: str, requests: pathlib.Path):
        self.path, self.requests = path, requests

    def __call__(self, *arguments: object) -> str:
        done = subprocess.run([self.path, *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, f"turret {' '.join(map(str, arguments))}: {done.stderr}"
        return done.stdout

    def load(self, rate: float, seconds: float, http: str = HTTP, **more: object) -> subprocess.Popen:
        flags = [str(part) for key, value in more.items() for part in (f"--{key.replace('_', '-')}", value)]
        command = [self.path, "load", "--url", f"http://{http}", "--requests", self.requests, "--rate", str(rate)]
        return subprocess.Popen([*command, "--duration-s", str(seconds), "--json", *flags], stdout=subprocess.PIPE, text=True)

    def serve(self, config: pathlib.Path, log: pathlib.Path) -> subprocess.Popen:
        node = subprocess.Popen([self.path, "serve", "--config", config], stderr=open(log, "w"))
        def is_ready() -> bool:
            assert node.poll() is None, log.read_text()
            return urllib.request.urlopen(f"http://{HTTP}/readyz").status == 200
        await_("the node is ready", is_ready)
        return node


def requests_of(users: int, path: pathlib.Path) -> None:
    """The quickstart's contexts, asked by users of this market."""
    bodies = [json.loads(line) for line in open(".turret/quickstart/requests.ndjson")]
    rng = random.Random(1)
    with open(path, "w") as file:
        for user in rng.sample(range(users), users):
            file.write(json.dumps(rng.choice(bodies) | {"user_id": f"u{user}"}) + "\n")


def make_dirty(users: int, at_ms: int | None = None) -> None:
    """One new event of every user, of now if no time is given."""
    at_ms = at_ms or int(time.time() * 1000)
    for start in range(0, users, 5_000):
        lines = [json.dumps({"user_id": f"u{user}", "item_id": f"item{user % 997}", "event_type": "view", "timestamp_ms": at_ms})
                 for user in range(start, min(start + 5_000, users))]
        urllib.request.urlopen(urllib.request.Request(f"http://{HTTP}/v1/events:ingest", "\n".join(lines).encode() + b"\n")).read()


def borne(turret: Program, rates: list[int] = RATES, seconds: float = 3) -> int:
    """The highest of `rates` that the node bears."""
    best = 0
    for rate in rates:
        told = report(turret.load(rate, seconds))
        if told["answered"] < told["sent"] or told["latency_us"]["p99"] > BORNE_P99_US:
            break
        best = rate
    return best


def market(turret: str, scratch: pathlib.Path, users: int, days: int, model: dict) -> tuple[Program, pathlib.Path]:
    """A market of its own with a contextual model, hardly trained, and the configuration of a node that serves it."""
    requests = scratch / "requests.ndjson"
    requests_of(users, requests)
    turret = Program(turret, requests)
    turret("synth", scratch / "market", "--users", users, "--days", days)
    path = config(scratch / "node.toml", data_dir=scratch, generations=scratch / "generations", models=scratch / "models",
                  dir=scratch / "market", **model)
    text = path.read_text()
    # A market of more days is cut at its end as well; what is learnt is of no interest here.
    first = [line for line in text.splitlines() if line.startswith(("validation_cut", "cut", "until"))]
    for line, day in zip(first, (-2, -1, 0)):
        key = line.split(" = ")[0]
        at = time.strftime("%Y-%m-%dT00:00:00Z", time.gmtime(1767571200 + 86400 * (days + day)))
        text = text.replace(line, f"{key} = {at}")
    path.write_text(text)
    turret("train", "--config", path, "--only", "contextual", "--steps", 20)
    return turret, path


def report(process: subprocess.Popen) -> dict:
    out, _ = process.communicate()
    return json.loads(out)


def status() -> dict:
    with urllib.request.urlopen(f"http://{ADMIN}/admin/status") as answer:
        return json.load(answer)["nodes"][0]


def await_(what: str, holds) -> None:
    ends = time.monotonic() + 120
    while True:
        try:
            if holds():
                return
        except OSError:
            pass
        assert time.monotonic() < ends, what
        time.sleep(0.05)


def rows(rounds_of: dict[str, list[dict]]) -> list[dict]:
    """What each name came to, a round each, as `turret report` reads it."""
    mean = lambda rounds: {key: statistics.mean(one[key] for one in rounds) for key in rounds[0]}
    return [{"name": name, "mean": mean(rounds), "seeds": rounds} for name, rounds in rounds_of.items()]


def machine() -> str:
    return f"{os.cpu_count()} cores, {platform.platform()}"


def commit() -> str:
    return subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
