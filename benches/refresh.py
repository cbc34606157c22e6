#!/usr/bin/env python3
"""How fast a refresh is beside `turret encode`, and what it costs the requests that go on meanwhile.

Two encoders: the quickstart's small one over its market's histories, and one of the usual size over full histories. For each: a
market of its own, the rate of `turret encode`, then a node with a new event of every user: refreshed while nobody asks, and while
requests come at half of the rate that it can bear. Prints ratios and writes them as JSON. Usage: benches/refresh.py TURRET OUT.json [ROUNDS]
"""

import json, pathlib, random, statistics, sys, tempfile, time, urllib.request

from serving import HTTP, Program, ADMIN, commit, config, machine, report, rows

OUT, ROUNDS = pathlib.Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 3
RATES = [100, 250, 500, 750, 1000, 1500, 2000, 3000, 4000, 6000, 8000, 10000, 12000, 14000, 16000, 20000, 24000, 32000]
# What a rate is borne by: all requests are answered, these of a hundred within so many microseconds.
BORNE_P99_US = 20_000
USUAL = {"layers": 2, "heads": 4, "feed_forward": 256, "history_length_max": 100}
# So many that a refresh beside requests goes on for some seconds: of two seconds at some thousand requests, one stall of twenty
# milliseconds is the hundredth that p99 tells of.
SETTINGS = {"small": (150_000, 21, {}), "usual": (20_000, 120, USUAL)}


def requests_of(users: int, path: pathlib.Path) -> None:
    """The quickstart's contexts, asked by users of this market."""
    bodies = [json.loads(line) for line in open(".turret/quickstart/requests.ndjson")]
    rng = random.Random(1)
    with open(path, "w") as file:
        for user in rng.sample(range(users), users):
            file.write(json.dumps(rng.choice(bodies) | {"user_id": f"u{user}"}) + "\n")


def make_dirty(users: int) -> None:
    """One new event of every user."""
    now = int(time.time() * 1000)
    for start in range(0, users, 5_000):
        lines = [json.dumps({"user_id": f"u{user}", "item_id": f"item{user % 997}", "event_type": "view", "timestamp_ms": now})
                 for user in range(start, min(start + 5_000, users))]
        urllib.request.urlopen(urllib.request.Request(f"http://{HTTP}/v1/events:ingest", "\n".join(lines).encode() + b"\n")).read()


def borne(turret: Program) -> int:
    """The highest of `RATES` that the node bears."""
    best = 0
    for rate in RATES:
        told = report(turret.load(rate, 3))
        if told["answered"] < told["sent"] or told["latency_us"]["p99"] > BORNE_P99_US:
            break
        best = rate
    return best


def measure(scratch: pathlib.Path, users: int, days: int, model: dict) -> dict:
    requests = scratch / "requests.ndjson"
    requests_of(users, requests)
    turret = Program(sys.argv[1], requests)
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
    encoded = []
    for turn in range(ROUNDS):
        encoded.append(json.loads(turret("encode", "--config", path, "--out", scratch / f"encoded{turn}", "--json")))
    turret("publish", "--config", path)
    node = turret.serve(path, scratch / "node.log")
    try:
        rate = borne(turret)
        figures = {"users": users, "events_per_user": 0, "rate_borne": rate, "rate": rate / 2, "encode_users_per_second": [], "idle": [], "busy": []}
        for one in encoded:
            figures["encode_users_per_second"].append(one["users_per_second"])
        figures["events_per_user"] = sum(part["events"] for part in encoded[0]["partitions"]) / users
        for _ in range(ROUNDS):
            make_dirty(users)
            figures["idle"].append(json.loads(turret("refresh", "--admin", f"http://{ADMIN}", "--json")))
            # So that the refresh goes on for the whole of it.
            seconds = max(4, 2 * figures["idle"][-1]["seconds"])
            quiet = report(turret.load(rate / 2, seconds))
            make_dirty(users)
            asking = turret.load(rate / 2, seconds)
            told = json.loads(turret("refresh", "--admin", f"http://{ADMIN}", "--json"))
            busy = report(asking)
            figures["busy"].append(told | {
                "window_s": seconds, "share_of_window": told["seconds"] / seconds, "p99_us": busy["latency_us"]["p99"], "quiet_p99_us": quiet["latency_us"]["p99"],
                "p50_us": busy["latency_us"]["p50"], "quiet_p50_us": quiet["latency_us"]["p50"],
                "unanswered": busy["sent"] - busy["answered"] + quiet["sent"] - quiet["answered"],
            })
    finally:
        node.terminate()
        node.wait()
    encode = statistics.median(figures["encode_users_per_second"])
    figures["idle_over_encode"] = [one["users_per_second"] / encode for one in figures["idle"]]
    figures["busy_over_encode"] = [one["users_per_second"] / encode for one in figures["busy"]]
    figures["p99_ratio"] = [one["p99_us"] / one["quiet_p99_us"] for one in figures["busy"]]
    return figures


result = {
    "command": f"benches/refresh.py {' '.join(sys.argv[1:])}", "commit": commit(),
    "machine": machine(), "encoders": {},
}
for name, (users, days, model) in SETTINGS.items():
    with tempfile.TemporaryDirectory() as scratch:
        one = result["encoders"][name] = measure(pathlib.Path(scratch), users, days, model)
    shown = lambda values, digits=2: ", ".join(f"{value:.{digits}f}" for value in values)
    print(f"{name}: {users} users of {one['events_per_user']:.0f} events; encode {shown(one['encode_users_per_second'], 0)} users/s; "
          f"refresh {shown(one['idle_over_encode'])} of that idle, {shown(one['busy_over_encode'])} at {one['rate']:.0f} requests/s "
          f"(half of {one['rate_borne']}); p99 {shown(one['p99_ratio'])} times that of quiet, over windows of which the refresh took {shown([busy['share_of_window'] for busy in one['busy']])}; "
          f"unanswered {sum(busy['unanswered'] for busy in one['busy'])}", flush=True)
RATIOS = ["idle_over_encode", "busy_over_encode", "p99_ratio"]
result["rows"] = rows({
    f"{name} encoder": [dict(zip(RATIOS, values)) for values in zip(*(one[key] for key in RATIOS))]
    for name, one in result["encoders"].items()
})
OUT.write_text(json.dumps(result, indent=1) + "\n")
