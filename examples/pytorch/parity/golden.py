"""Writes what the parity test compares Turret with: random weights of three models, and what PyTorch makes of them.

usage: golden.py TURRET DIR
  TURRET  the program, whose `model tensors` says what each model asks for
  DIR     gets NAME.safetensors for each model, and cases.json
"""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from turret_model import Features, TurretModel, save_weights  # noqa: E402

MODELS = {
    "concat": ("concat.toml", "contextual"),
    "history-only": ("concat.toml", "history-only"),
    "cross-attention": ("cross_attention.toml", "contextual"),
}
UNSEEN = {
    "item_id": "never seen",
    "advertiser_id": "shop ü",
    "interests": [{"id": "rugs", "confidence": 0.5}, {"id": "unheard of", "confidence": 1.0}],
    "price": 12.34,
    "embedding": [0.5, 0.25, -1.0],
}
CONTEXTS = [
    None,
    {"subject": {"item_id": "i3", "interests": []}},
    {"subject": {"item_id": "i20", "interests": [{"id": "déco", "confidence": 0.4}, {"id": "rugs", "confidence": 0.8}]}},
    {"subject": {"interests": [{"id": "unheard of", "confidence": 1.0}]}},
    {"query": "Brass LAMP, brass!"},
    {"query": "lampe déco", "subject": {"item_id": "i5", "interests": []}},
    {"query": "zzzzzz"},
]
USERS = [
    {},
    {"age": 17, "country": "BR", "gender": "female"},
    {"age": 56, "country": "FR", "gender": "male"},
]


def read():
    rows = lambda name: pq.read_table(HERE / "data" / f"{name}.parquet").to_pylist()
    items = {item["item_id"]: item for item in rows("items")}
    logs = {}
    for event in sorted(rows("events"), key=lambda event: event["timestamp_ms"]):
        logs.setdefault(event.pop("user_id"), []).append(event)
    # Leaving one out keeps each user's last two events from training.
    seen = {event["item_id"] for events in logs.values() for event in events[:-2]}
    return items, logs, seen


def model_of(description, features, logs):
    """Weights as a training could leave them: gains and biases that do something, and rows that it never touched."""
    torch.manual_seed(1)
    model = TurretModel(description, features).train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
        model.table.mul_(12)
        model.queries(list(logs.values()), [{"query": "brass lamp"}] * len(logs), USERS * 2 + USERS[:2])
        model.ad_vectors(list(features.items.values())[:18])
    model.forget_untouched()
    return model.eval()


def as_item(item):
    """As Turret's own JSON has an item."""
    return {"id": item["item_id"], "advertiser": item["advertiser_id"], "title": None} | {
        name: item[name] for name in ("interests", "price", "embedding")
    }


def main():
    turret, out = sys.argv[1], Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    items, logs, seen = read()
    histories = [[], logs["u0"], logs["u7"], logs["u3"][:2] + [dict(logs["u3"][0], item_id="unheard of")]]
    asked = [items["i3"], items["i20"], items["i23"], UNSEEN]
    queries = [
        {"history": history, "context": context, "user": history % len(USERS)}
        for history in range(len(histories))
        for context in range(len(CONTEXTS))
    ]
    cases = {
        "histories": histories,
        "contexts": CONTEXTS,
        "users": USERS,
        "items": [as_item(item) for item in asked],
        "queries": queries,
        "models": {},
    }
    for name, (config, kind) in MODELS.items():
        command = [turret, "model", "tensors", "--config", str(HERE / config), "--kind", kind, "--json"]
        description = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=HERE.parents[2]).stdout)
        model = model_of(description, Features(description, items, seen), logs)
        save_weights(model, description, out / f"{name}.safetensors")
        with torch.no_grad():
            states, inside = model.encode(histories)
            embedded = model.queries(
                [histories[query["history"]] for query in queries],
                [CONTEXTS[query["context"]] for query in queries],
                [USERS[query["user"]] for query in queries],
            )
            ads = model.ad_vectors(asked)
        cases["models"][name] = {
            "config": config,
            "kind": kind,
            "states": [states[number][inside[number]].tolist() for number in range(len(histories))],
            "queries": embedded.tolist(),
            "items": ads.tolist(),
        }
    text = json.dumps(cases, ensure_ascii=False)
    (out / "cases.json").write_text(text + "\n")
    print(f"{out}: {len(MODELS)} models, PyTorch {torch.__version__}, {sum(f.stat().st_size for f in out.iterdir())} bytes")


main()
