#!/usr/bin/env python3
"""What publishing costs the requests that go on meanwhile: p99 in rounds of quiet, publication, roll-back and refresh.

Starts a node of its own over the quickstart's marketplace and models, asks it at a fixed rate, and compares within each round.
Prints ratios and writes them as JSON. Usage: benches/publish.py TURRET OUT.json [ROUNDS]
"""

import json, os, pathlib, platform, statistics, subprocess, sys, tempfile, time, urllib.request

TURRET, OUT = sys.argv[1], pathlib.Path(sys.argv[2])
ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 3
RATE, SECONDS, REFRESH_RATE = 200, 12, 300
HTTP, ADMIN = "127.0.0.1:7141", "127.0.0.1:7241"
QUICKSTART = pathlib.Path(".turret/quickstart")


def config(directory: pathlib.Path, models: pathlib.Path) -> pathlib.Path:
    text = pathlib.Path("cluster-config/single.toml").read_text()
    for key, value in [("data_dir", directory), ("generations", directory / "generations"), ("models", models)]:
        lines = [f'{key} = "{value}"' if line.startswith(f"{key} = ") else line for line in text.splitlines()]
        text = "\n".join(lines)
    text = text.replace("127.0.0.1:7101", HTTP).replace("127.0.0.1:7201", ADMIN)
    path = directory / f"{models.name}-{models.parent.name}.toml"
    path.write_text(text + f"\n\n[publish]\nwatch_s = {SECONDS // 2}\n")
    return path


def turret(*arguments: object) -> str:
    return subprocess.run([TURRET, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def load(rate: int, **more: object) -> subprocess.Popen:
    flags = [str(part) for key, value in more.items() for part in (f"--{key.replace('_', '-')}", value)]
    command = [TURRET, "load", "--url", f"http://{HTTP}", "--requests", QUICKSTART / "requests.ndjson", "--rate", str(rate)]
    return subprocess.Popen([*command, "--duration-s", str(SECONDS), "--json", *flags], stdout=subprocess.PIPE, text=True)


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


def measure(rounds: int, first: pathlib.Path, second: pathlib.Path) -> dict:
    figures: dict[str, list[dict]] = {"quiet": [], "publish": [], "roll_back": [], "quiet_half": [], "refresh": []}
    # Made while nobody measures: what is measured is the node that takes it.
    told = json.loads(turret("publish", "--config", second, "--json"))
    versions = {"first": FIRST, "second": told["manifest"]["id"]}
    turret("publish", "--config", first, "--generation", FIRST)
    for _ in range(rounds):
        figures["quiet"].append(report(load(RATE)))
        asking = load(RATE)
        turret("publish", "--config", second, "--generation", versions["second"])
        figures["publish"].append(report(asking))
        assert status()["generation"] == versions["second"], status()
        # Back by the other way: published, and taken back while it is watched.
        asking = load(RATE)
        turret("publish", "--config", first, "--generation", versions["first"], "--detach")
        await_("it is watched", lambda: status()["rollout"]["plan"]["phase"] == "watching")
        turret("publish", "--config", first, "--rollback")
        figures["roll_back"].append(report(asking))
        turret("publish", "--config", first, "--generation", versions["first"])

        figures["quiet_half"].append(report(load(REFRESH_RATE)))
        # Every user of the requests has new events, so that a refresh has something to do.
        turret("load", "--url", f"http://{HTTP}", "--requests", QUICKSTART / "requests.ndjson", "--rate", 1,
               "--duration-s", 2, "--events-rate", 20_000, "--events-per-request", 500)
        asking = load(REFRESH_RATE)
        told = json.loads(turret("refresh", "--admin", f"http://{ADMIN}", "--json"))
        figures["refresh"].append(report(asking) | {"users": told["users_refreshed"], "users_per_second": told["users_per_second"]})
        turret("load", "--url", f"http://{HTTP}", "--requests", QUICKSTART / "requests.ndjson", "--rate", 1,
               "--duration-s", 2, "--events-rate", 20_000, "--events-per-request", 500)
        idle = json.loads(turret("refresh", "--admin", f"http://{ADMIN}", "--json"))
        figures["refresh"][-1]["users_per_second_idle"] = idle["users_per_second"]
    return figures


with tempfile.TemporaryDirectory() as scratch:
    scratch = pathlib.Path(scratch)
    first = config(scratch, QUICKSTART.resolve() / "models")
    second = config(scratch, scratch / "models")
    turret("train", "--config", second, "--only", "contextual", "--steps", "400")
    FIRST = json.loads(turret("publish", "--config", first, "--json"))["id"]
    node = subprocess.Popen([TURRET, "serve", "--config", first], stderr=open(scratch / "node.log", "w"))
    try:
        await_("the node is ready", lambda: urllib.request.urlopen(f"http://{HTTP}/readyz").status == 200)
        report(load(RATE))  # to warm up
        figures = measure(ROUNDS, first, second)
    finally:
        node.terminate()
        node.wait()

p99 = {name: [one["latency_us"]["p99"] for one in rounds] for name, rounds in figures.items()}
of = lambda busy, quiet: [b / q for b, q in zip(p99[busy], p99[quiet])]
ratios = {"publish": of("publish", "quiet"), "roll_back": of("roll_back", "quiet"), "refresh": of("refresh", "quiet_half")}
lost = {name: sum(one["sent"] - one["answered"] for one in rounds) for name, rounds in figures.items()}
result = {
    "command": f"benches/publish.py {TURRET} {OUT} {ROUNDS}",
    "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip(),
    "machine": {"cores": os.cpu_count(), "system": platform.platform()},
    "rate": RATE, "rate_refresh": REFRESH_RATE, "seconds": SECONDS,
    "p99_us": p99, "p99_ratio": ratios,
    "p99_ratio_median": {name: statistics.median(values) for name, values in ratios.items()},
    "unanswered": lost,
    "refresh": [{key: one[key] for key in ("users", "users_per_second", "users_per_second_idle")} for one in figures["refresh"]],
}
OUT.write_text(json.dumps(result, indent=1) + "\n")
for name, values in ratios.items():
    print(f"{name}: p99 {', '.join(f'{value:.2f}' for value in values)} times that of quiet, median {statistics.median(values):.2f}")
print("unanswered:", lost)
for one in result["refresh"]:
    print(f"refresh: {one['users']} users, {one['users_per_second']:.0f}/s under load, {one['users_per_second_idle']:.0f}/s idle")
