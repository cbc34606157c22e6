#!/usr/bin/env python3
"""What publishing costs the requests that go on meanwhile: p99 in rounds of quiet, publication, roll-back and making a generation too.

Starts a node of its own over the quickstart's marketplace and models, asks it at a fixed rate, and compares within each round.
Prints ratios and writes them as JSON. Usage: benches/publish.py TURRET OUT.json [ROUNDS]
"""

import json, pathlib, statistics, sys, tempfile

from serving import Program, await_, commit, config, machine, report, rows, status

OUT = pathlib.Path(sys.argv[2])
ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 3
RATE, SECONDS = 200, 12
QUICKSTART = pathlib.Path(".turret/quickstart")
WATCH = f"\n\n[publish]\nwatch_s = {SECONDS // 2}\n"
turret = Program(sys.argv[1], QUICKSTART / "requests.ndjson")


def measure(rounds: int, first: pathlib.Path, second: pathlib.Path) -> dict:
    figures: dict[str, list[dict]] = {"quiet": [], "publish": [], "roll_back": [], "make_and_publish": []}
    # Made while nobody measures: what is measured first is the node that takes it.
    told = json.loads(turret("publish", "--config", second, "--json"))
    versions = {"first": FIRST, "second": told["manifest"]["id"]}
    turret("publish", "--config", first, "--generation", FIRST)
    for _ in range(rounds):
        figures["quiet"].append(report(turret.load(RATE, SECONDS)))
        asking = turret.load(RATE, SECONDS)
        turret("publish", "--config", second, "--generation", versions["second"])
        figures["publish"].append(report(asking))
        assert status()["generation"] == versions["second"], status()
        # Back by the other way: published, and taken back while it is watched.
        asking = turret.load(RATE, SECONDS)
        turret("publish", "--config", first, "--generation", versions["first"], "--detach")
        await_("it is watched", lambda: status()["rollout"]["plan"]["phase"] == "watching")
        turret("publish", "--config", first, "--rollback")
        figures["roll_back"].append(report(asking))
        # Made beside the node that serves, on its cores.
        asking = turret.load(RATE, SECONDS)
        made = json.loads(turret("publish", "--config", second, "--json"))
        figures["make_and_publish"].append(report(asking))
        assert status()["generation"] == made["manifest"]["id"], status()
        turret("publish", "--config", first, "--generation", versions["first"])
    return figures


with tempfile.TemporaryDirectory() as scratch:
    scratch = pathlib.Path(scratch)
    places = {"data_dir": scratch, "generations": scratch / "generations"}
    first = config(scratch / "first.toml", WATCH, models=QUICKSTART.resolve() / "models", **places)
    second = config(scratch / "second.toml", WATCH, models=scratch / "models", **places)
    turret("train", "--config", second, "--only", "contextual", "--steps", "400")
    FIRST = json.loads(turret("publish", "--config", first, "--json"))["id"]
    node = turret.serve(first, scratch / "node.log")
    try:
        report(turret.load(RATE, SECONDS))  # to warm up
        figures = measure(ROUNDS, first, second)
    finally:
        node.terminate()
        node.wait()

p99 = {name: [one["latency_us"]["p99"] for one in rounds] for name, rounds in figures.items()}
of = lambda busy, quiet: [b / q for b, q in zip(p99[busy], p99[quiet])]
ratios = {busy: of(busy, "quiet") for busy in figures if busy != "quiet"}
lost = {name: sum(one["sent"] - one["answered"] for one in rounds) for name, rounds in figures.items()}
result = {
    "command": f"benches/publish.py {' '.join(sys.argv[1:])}", "commit": commit(),
    "machine": machine(),
    "rate": RATE, "seconds": SECONDS,
    "p99_us": p99, "p99_ratio": ratios,
    "p99_ratio_median": {name: statistics.median(values) for name, values in ratios.items()},
    "unanswered": lost,
    "rows": rows({name: [{"p99_ratio": value} for value in values] for name, values in ratios.items()}),
}
OUT.write_text(json.dumps(result, indent=1) + "\n")
for name, values in ratios.items():
    print(f"{name}: p99 {', '.join(f'{value:.2f}' for value in values)} times that of quiet, median {statistics.median(values):.2f}")
print("unanswered:", lost)
