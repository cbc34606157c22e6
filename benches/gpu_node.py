#!/usr/bin/env python3
"""A node whose inference worker computes on a GPU, beside the same node on the CPU.

For each of two encoders a market of its own and one generation. A node serves it on one device after the other: how long until it is
ready, whether both answer the same, what a request costs, how many are borne, how fast users are refreshed and at what cost to
requests, an ad that is embedded while it serves, and a publication and a roll-back under requests. Fails, and writes nothing, where another than
the worker answered but for load, something is unanswered, or answers differ beyond rounding. Prints the figures and writes them as JSON.
Usage: benches/gpu_node.py TURRET OUT.json [DEVICE]
"""

import json, pathlib, re, subprocess, sys, tempfile, time, urllib.request

from serving import ADMIN, HTTP, USUAL, Program, await_, borne, commit, machine, make_dirty, market, report, rows, status

OUT, DEVICE = pathlib.Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "cuda:0"
SETTINGS = {"small": (40_000, 21, {}), "usual": (10_000, 120, USUAL)}
RATES = [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000]
ASKED = 400
QUERY = ["nvidia-smi", f"--id={DEVICE.removeprefix('cuda:')}", "--query-gpu=name", "--format=csv,noheader"]
GPU = subprocess.run(QUERY, check=True, capture_output=True, text=True).stdout.strip()
# States are kept as f16: whoever rounds the other way is a thousandth off.
SCORES_DIFFER_MAX = 2e-3
# Ads that score alike may change places with those behind the last.
SHARED_ADS_MIN = 0.999
# The same on both devices: what an encoder makes of events depends on the time between them.
EVENTS_AT_MS = [int(time.time() * 1000) - 120_000, int(time.time() * 1000) - 60_000]


def post(path: str, body: object, method: str = "POST") -> dict:
    request = urllib.request.Request(f"http://{HTTP}{path}", json.dumps(body).encode(), {"content-type": "application/json"}, method=method)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def answers(turret: Program) -> list[dict]:
    bodies = [json.loads(line) for _, line in zip(range(ASKED), open(turret.requests))]
    told = [post("/v1/candidates:retrieve", body | {"k": 100, "deadline_ms": 1_000}) for body in bodies]
    assert all(one["inference"] == {"by": "worker"} and one["status"] == "full" for one in told), told[0]
    return told


def differences(when: str, one: list[dict], other: list[dict]) -> dict:
    """How alike two devices answer: the share of ads that both give, and by how much the scores of those differ at most."""
    scores = lambda answer: {candidate["ad_id"]: candidate["score"] for candidate in answer["candidates"]}
    pairs = [(scores(a), scores(b)) for a, b in zip(one, other)]
    both = [a.keys() & b.keys() for a, b in pairs]
    differ = max(abs(a[ad] - b[ad]) for (a, b), ads in zip(pairs, both) for ad in ads)
    return {f"shared_ads_{when}": sum(map(len, both)) / sum(len(a) for a, _ in pairs), f"scores_differ_by_{when}": differ}


def metrics() -> str:
    with urllib.request.urlopen(f"http://{HTTP}/metrics") as told:
        return told.read().decode()


def rows_of(lane: str, before: str) -> float:
    """How many rows a batch of `lane` had on average since `before`."""
    value = lambda text, part: sum(float(found) for found in re.findall(rf'turret_inference_batch_rows_{part}{{[^}}]*lane="{lane}"[^}}]*}} (\S+)', text))
    now = metrics()
    return (value(now, "sum") - value(before, "sum")) / max(1.0, value(now, "count") - value(before, "count"))


def refresh() -> dict:
    return json.loads(turret("refresh", "--admin", f"http://{ADMIN}", "--json"))


def new_ad() -> float:
    """Seconds until an ad of now is found, by a request that asks for nothing else."""
    started = time.monotonic()
    item = {"id": "item-of-now", "advertiser_id": "of-now", "interests": [{"id": "music/violin", "confidence": 1.0}], "title": "of now"}
    post("/v1/ads/of-now", {"item": item, "attributes": {"status": "active", "countries": ["ZZ"]}}, "PUT")
    body = {"surface": "related_pins", "k": 1, "deadline_ms": 1_000, "filter": "countries has ZZ"}
    await_("the ad is found", lambda: [one["ad_id"] for one in post("/v1/candidates:retrieve", body)["candidates"]] == ["of-now"])
    return time.monotonic() - started


def on(name: str, device: str, path: pathlib.Path, scratch: pathlib.Path, users: int) -> tuple[dict, list[list[dict]]]:
    of, data = scratch / f"{name}.toml", scratch / name
    of.write_text(path.read_text().replace(f'data_dir = "{scratch}"', f'data_dir = "{data}"') + f'\n[inference]\ndevice = "{device}"\n\n[publish]\nwatch_s = 4\np99_ratio_max = 100\n')
    started = time.monotonic()
    node = turret.serve(of, scratch / "node.log")
    figures = {"ready_s": time.monotonic() - started}
    try:
        encoded = json.loads(turret("encode", "--config", of, "--out", data / "encoded", "--device", device, "--json"))
        figures["encode_users_per_s"] = encoded["users_per_second"]
        answered = [answers(turret)]
        figures["new_ad_s"] = new_ad()
        told = report(turret.load(100, 3))
        figures |= {"p50_us": told["latency_us"]["p50"], "p99_us": told["latency_us"]["p99"]}
        inference = sorted(one["timings_us"]["inference"] for one in answers(turret))
        figures["inference_us"] = inference[len(inference) // 2]
        before = metrics()
        rate = figures["requests_per_s"] = borne(turret, RATES, 2)
        figures["rows_online"] = rows_of("online", before)
        make_dirty(users, EVENTS_AT_MS[0])
        before = metrics()
        figures["refresh_users_per_s"] = refresh()["users_per_second"]
        figures["rows_refresh"] = rows_of("refresh", before)
        quiet = report(turret.load(rate / 2, 4))
        make_dirty(users, EVENTS_AT_MS[1])
        asking = turret.load(rate / 2, 4)
        figures["refresh_busy_users_per_s"] = refresh()["users_per_second"]
        busy = report(asking)
        figures["refresh_p99_ratio"] = busy["latency_us"]["p99"] / quiet["latency_us"]["p99"]
        # A publication and a roll-back, with two workers on the device.
        first = status()["generation"]
        asking = turret.load(100, 10)
        made = json.loads(turret("publish", "--config", of, "--json"))
        assert status()["generation"] == made["manifest"]["id"] != first, status()
        turret("publish", "--config", of, "--rollback")
        assert status()["generation"] == first, status()
        published = report(asking)
        figures["publish_p99_ratio"] = published["latency_us"]["p99"] / figures["p99_us"]
        figures["unanswered"] = sum(one["sent"] - one["answered"] for one in (told, quiet, busy, published))
        # Above what is borne the node's own head may have to help; never because of what the worker computed.
        others = re.findall(r'turret_inference_fallback_total{.*reason="(?!worker_overloaded|worker_timeout).*} [1-9].*', metrics())
        assert not others, others
        answered.append(answers(turret))
    finally:
        node.terminate()
        node.wait()
    return figures, answered


found: dict[str, list[dict]] = {}
for name, (users, days, model) in SETTINGS.items():
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        turret, path = market(sys.argv[1], scratch, users, days, model)
        turret("publish", "--config", path)
        (cpu, known), (own, answered) = [on(*place, path, scratch, users) for place in (("known", "cpu"), ("own", DEVICE))]
    for when, one, other in zip(("at_first", "refreshed"), known, answered):
        own |= differences(when, one, other)
    for device, figures in (("cpu", cpu), (DEVICE, own)):
        found[f"{name} encoder, {device}"] = [figures]
        print(f"{name} encoder, {device}: " + ", ".join(f"{key} {value:.6g}" for key, value in figures.items()), flush=True)
for name, [figures] in found.items():
    is_alike = all(value <= SCORES_DIFFER_MAX for key, value in figures.items() if key.startswith("scores_differ"))
    assert is_alike and all(value >= SHARED_ADS_MIN for key, value in figures.items() if key.startswith("shared_ads")), f"{name}: answers differ"
    assert figures["unanswered"] == 0, f"{name}: unanswered"
result = {"command": "just bench-gpu-node", "commit": commit(), "machine": f"{machine()}, {GPU}", "device": DEVICE, "rows": rows(found)}
OUT.write_text(json.dumps(result, indent=1) + "\n")
