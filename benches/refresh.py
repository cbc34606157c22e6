#!/usr/bin/env python3
"""How fast a refresh is beside `turret encode`, and what it costs the requests that go on meanwhile.

Two encoders: the quickstart's small one over its market's histories, and one of the usual size over full histories. For each: a
market of its own, the rate of `turret encode`, then a node with a new event of every user: refreshed while nobody asks, and while
requests come at half of the rate that it can bear. Prints ratios and writes them as JSON. Usage: benches/refresh.py TURRET OUT.json [ROUNDS]
"""

import json, pathlib, statistics, sys, tempfile

from serving import ADMIN, USUAL, borne, commit, machine, make_dirty, market, report, rows

OUT, ROUNDS = pathlib.Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 3
# So many that a refresh beside requests goes on for some seconds: of two seconds at some thousand requests, one stall of twenty
# milliseconds is the hundredth that p99 tells of.
SETTINGS = {"small": (150_000, 21, {}), "usual": (20_000, 120, USUAL)}


def measure(scratch: pathlib.Path, users: int, days: int, model: dict) -> dict:
    turret, path = market(sys.argv[1], scratch, users, days, model)
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
