#!/usr/bin/env python3
"""How many events a node acknowledges over HTTP, each flushed, and what that costs the requests that go on meanwhile.

Starts a node of its own over the quickstart's marketplace and models and asks it at a fixed rate; in each round once without events and
then beside ingestions, at one rate of events after the other. Prints what was acknowledged and writes it as JSON.
Usage: benches/ingest.py TURRET OUT.json [ROUNDS]
"""

import json, pathlib, statistics, sys, tempfile, time

from serving import Program, commit, config, machine, report, rows

OUT = pathlib.Path(sys.argv[2])
ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 3
RATE, SECONDS = 100, 8
# Events a second, and how many share a request.
INGESTIONS = [(1_000, 10), (10_000, 10), (10_000, 100), (20_000, 100), (30_000, 100)]
# After a rate that is too much.
REST_S = 10
QUICKSTART = pathlib.Path(".turret/quickstart")
turret = Program(sys.argv[1], QUICKSTART / "requests.ndjson")


def beside(rate: int, count: int, quiet: dict) -> dict:
    told = report(turret.load(RATE, SECONDS, events_rate=rate, events_per_request=count))
    events = told["events"]
    return {
        "acknowledged_per_s": events["answered"] * count / events["seconds"],
        "acknowledged_share": events["answered"] / (events["sent"] + events["dropped"]),
        "p50_us": events["latency_us"]["p50"], "p99_us": events["latency_us"]["p99"],
        "retrieval_p99_us": told["latency_us"]["p99"], "retrieval_p99_quiet_us": quiet["latency_us"]["p99"],
        "retrievals_unanswered": told["sent"] - told["answered"],
    }


with tempfile.TemporaryDirectory() as scratch:
    scratch = pathlib.Path(scratch)
    path = config(scratch / "node.toml", models=QUICKSTART.resolve() / "models", data_dir=scratch, generations=scratch / "generations")
    turret("publish", "--config", path)
    node = turret.serve(path, scratch / "node.log")
    try:
        report(turret.load(RATE, SECONDS))  # to warm up
        figures: dict[str, list[dict]] = {}
        for _ in range(ROUNDS):
            time.sleep(REST_S)
            quiet = report(turret.load(RATE, SECONDS))
            for rate, count in INGESTIONS:
                figures.setdefault(f"{rate} events/s, {count} a request", []).append(beside(rate, count, quiet))
    finally:
        node.terminate()
        node.wait()

for name, rounds in figures.items():
    median = lambda key: statistics.median(one[key] for one in rounds)
    print(f"{name}: {median('acknowledged_per_s'):.0f}/s acknowledged, {median('acknowledged_share'):.1%} of what was to be sent; p50 {median('p50_us') / 1e3:.1f} ms, "
          f"p99 {median('p99_us') / 1e3:.1f} ms; retrievals p99 {median('retrieval_p99_us') / 1e3:.1f} ms beside {median('retrieval_p99_quiet_us') / 1e3:.1f}, "
          f"unanswered {sum(one['retrievals_unanswered'] for one in rounds)}")
result = {
    "command": f"benches/ingest.py {' '.join(sys.argv[1:])}", "commit": commit(), "machine": machine(),
    "rate": RATE, "seconds": SECONDS, "rows": rows(figures),
}
OUT.write_text(json.dumps(result, indent=1) + "\n")
