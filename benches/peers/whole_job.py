"""The whole job as a team would glue it today: states in Redis, the head in onnxruntime, hnswlib, and uvicorn in front.

`prepare` computes with PyTorch, from the weights of a trained model and the data set it was published with, what a nightly job
would: an embedding for each active ad, into an hnswlib index, and a state for each user, into Redis. The server answers
`POST /v1/candidates:retrieve` with the fields of Turret's answer that callers use. benches/whole_job.py runs both.

usage: whole_job.py prepare DIR REDIS_PORT < what it asks for, as JSON
       whole_job.py serve DIR HTTP_PORT REDIS_PORT WORKERS EF
"""

import json, os, pathlib, sys

import numpy as np
import orjson

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "examples/pytorch"))
# What an index is built with, as in benches/peers/index.py.
DEGREE, BUILD_LIST = 16, 100


def prepare(out, port):
    import hnswlib, redis, torch
    import pyarrow.parquet as pq
    from safetensors.torch import load_file
    from turret_model import Features, TurretModel, unit

    asked = json.load(sys.stdin)
    market, weights, cut = pathlib.Path(asked["market"]), asked["weights"], asked["cut_ms"]
    rows = lambda name: pq.read_table(market / f"{name}.parquet").to_pylist()
    items = {item["item_id"]: item | {"embedding": None} for item in rows("items")}
    logs, seen = {}, set()
    for event in sorted(rows("events"), key=lambda event: event["timestamp_ms"]):
        logs.setdefault(event["user_id"], []).append(event)
        if event["timestamp_ms"] < cut:
            seen.add(event["item_id"])
    features = Features(asked["description"], items, seen)
    model = TurretModel(asked["description"], features).eval()
    load(model, load_file(weights))
    ads = [ad for ad in rows("ads") if ad["status"] == "active"]
    say = lambda text: print(text, file=sys.stderr, flush=True)
    with torch.no_grad():
        say(f"  {len(ads)} ads")
        embed = lambda ads: model.ad_vectors([items[ad["item_id"]] for ad in ads]).numpy()
        vectors = np.concatenate([embed(ads[at : at + 4096]) for at in range(0, len(ads), 4096)])
        users = rows("users")
        say(f"  {len(users)} users")
        store = redis.Redis(port=port)
        for at in range(0, len(users), 256):
            some = users[at : at + 256]
            known = [user for user in some if user["user_id"] in logs]
            states, inside = model.encode([logs[user["user_id"]] for user in known])
            last = states[torch.arange(len(known)), inside.sum(1) - 1].half().numpy()
            last = {user["user_id"]: state.tobytes() for user, state in zip(known, last)}
            pipe = store.pipeline(transaction=False)
            for user in some:
                # A state as exact as Turret keeps it, and the rows of age, country and gender.
                record = np.array(features.demographics(user), "<u4").tobytes() + last.get(user["user_id"], b"")
                pipe.set(f"user:{user['user_id']}", record)
            pipe.execute()
    say("  hnswlib's index")
    index = hnswlib.Index(space="ip", dim=vectors.shape[1])
    index.init_index(max_elements=len(vectors), M=DEGREE, ef_construction=BUILD_LIST, random_seed=1)
    index.add_items(vectors, num_threads=os.cpu_count())
    index.save_index(str(out / "ads.hnsw"))
    np.save(out / "vectors.npy", vectors)
    np.save(out / "table.npy", model.table.detach().numpy())
    (out / "ads.json").write_text(json.dumps([ad["ad_id"] for ad in ads]))
    (out / "words.json").write_text(json.dumps({"description": asked["description"]}))
    head_to_onnx(model, out / "head.onnx")
    np.save(out / "no_history.npy", model.head.no_history.detach().numpy())


def load(model, tensors):
    """The weights under Turret's names: matrices are [in, out], and a norm's weight is its gain."""
    import torch

    own = {"table": model.table, "head.no_history": model.head.no_history}
    for name, module in model.named_modules():
        for parameter in ("weight", "bias"):
            value = getattr(module, parameter, None)
            if isinstance(value, torch.nn.Parameter):
                gain = parameter == "weight" and isinstance(module, torch.nn.LayerNorm)
                own[f"{name}.{'gain' if gain else parameter}"] = value.T if value.dim() == 2 else value
    assert own.keys() == tensors.keys(), own.keys() ^ tensors.keys()
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(tensors[name])


def head_to_onnx(model, path):
    """From a state, a context's input, whether there is one, and three demographic embeddings to a query embedding."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    width = model.table.shape[1]
    constants, nodes = {}, []
    for name in ("context", "hidden", "output"):
        constants[f"{name}.weight"] = model.head[name].weight.detach().numpy().T.copy()
        constants[f"{name}.bias"] = model.head[name].bias.detach().numpy()
    node = lambda kind, inputs, output, **more: nodes.append(helper.make_node(kind, inputs, [output], **more))
    node("Gemm", ["context_input", "context.weight", "context.bias"], "c0")
    node("Gelu", ["c0"], "c1", approximate="tanh")
    node("Mul", ["c1", "given"], "context")
    node("Concat", ["state", "context", "demographics"], "joined", axis=1)
    node("Gemm", ["joined", "hidden.weight", "hidden.bias"], "h0")
    node("Gelu", ["h0"], "h1", approximate="tanh")
    node("Gemm", ["h1", "output.weight", "output.bias"], "o")
    node("Add", ["state", "o"], "sum")
    node("LpNormalization", ["sum"], "query", axis=1, p=2)
    inputs = {"state": width, "context_input": constants["context.weight"].shape[0], "given": 1, "demographics": 3 * width}
    graph = helper.make_graph(
        nodes,
        "head",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name, size in inputs.items()],
        [helper.make_tensor_value_info("query", TensorProto.FLOAT, [1, width])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


class App:
    """What a worker keeps, and an ASGI application: a framework in between would only cost time."""

    def __init__(self):
        import faiss, hnswlib, onnxruntime, redis.asyncio
        from turret_model import Features

        out, port, ef = pathlib.Path(os.environ["WHOLE_JOB_DIR"]), int(os.environ["WHOLE_JOB_REDIS"]), int(os.environ["WHOLE_JOB_EF"])
        description = json.loads((out / "words.json").read_text())["description"]
        # Requests of this benchmark name no items.
        self.features = Features(description, {}, set())
        self.settings = description["made_for"]["settings"]
        self.table = np.load(out / "table.npy")
        # A word that training never met says nothing.
        self.is_known = self.table.any(1)
        self.no_history = np.load(out / "no_history.npy")
        self.ads = json.loads((out / "ads.json").read_text())
        # A list of 0 stands for an exact scan.
        self.index, self.flat = None, None
        if ef > 0:
            self.index = hnswlib.Index(space="ip", dim=self.table.shape[1])
            self.index.load_index(str(out / "ads.hnsw"))
            self.index.set_ef(ef)
            self.index.set_num_threads(1)
        else:
            faiss.omp_set_num_threads(1)
            self.flat = faiss.IndexFlatIP(self.table.shape[1])
            self.flat.add(np.load(out / "vectors.npy"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.head = onnxruntime.InferenceSession(out / "head.onnx", options, providers=["CPUExecutionProvider"])
        self.redis = redis.asyncio.Redis(port=port)

    def query(self, record, context):
        width = self.table.shape[1]
        if record is None:
            rows, state = self.features.demographics({}), self.no_history
        else:
            rows = np.frombuffer(record, "<u4", 3)
            state = np.frombuffer(record, "<f2", offset=12).astype(np.float32)[None] if len(record) > 12 else self.no_history
        bag = self.features.interests(((context or {}).get("subject") or {}).get("interests"))
        query = [row for row in self.features.query((context or {}).get("query")) if self.is_known[row]]
        bag += [(row, 1 / len(query)) for row in query]
        given = np.full((1, 1), bool(bag), np.float32)
        context_input = np.zeros((1, (2 if self.settings["subject_item"] else 1) * width), np.float32)
        if bag:
            places, weights = zip(*bag)
            context_input[0, :width] = np.array(weights, np.float32) @ self.table[list(places)]
        inputs = {"state": state, "context_input": context_input, "given": given, "demographics": self.table[rows].reshape(1, -1)}
        return self.head.run(None, inputs)[0]

    def nearest(self, query, k):
        if self.flat is not None:
            scores, labels = self.flat.search(query, k)
            return labels, scores
        labels, distances = self.index.knn_query(query, k, num_threads=1)
        return labels, 1 - distances

    async def retrieve(self, body):
        request = orjson.loads(body)
        k = request["k"]
        record = await self.redis.get(f"user:{request['user_id']}")
        labels, scores = self.nearest(self.query(record, request.get("context")), k)
        candidates = [{"ad_id": self.ads[row], "score": score} for row, score in zip(labels[0].tolist(), scores[0].tolist())]
        return orjson.dumps({"status": "full", "candidates": candidates})

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        answer = await self.retrieve(body) if scope["path"] == "/v1/candidates:retrieve" else b'{"status": "ready"}'
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


def serve(out, port, redis_port, workers, ef):
    import uvicorn

    os.environ |= {"WHOLE_JOB_DIR": str(out), "WHOLE_JOB_REDIS": redis_port, "WHOLE_JOB_EF": ef, "OMP_NUM_THREADS": "1"}
    os.environ["PYTHONPATH"] = os.pathsep.join([str(pathlib.Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    log = {"access_log": False, "log_level": "warning"}
    uvicorn.run("whole_job:App", factory=True, port=int(port), workers=int(workers), loop="uvloop", http="httptools", **log)


if __name__ == "__main__":
    command, out, *more = sys.argv[1:]
    {"prepare": lambda: prepare(pathlib.Path(out), int(more[0])), "serve": lambda: serve(pathlib.Path(out), *more)}[command]()
