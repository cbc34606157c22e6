"""Turret's two-tower model in PyTorch, on the weights and the batch that benches/training.rs wrote.

Reads commands from stdin, `train N` or `encode N`, and answers each with a line of JSON: CPU and wall seconds of the N
repetitions, and the losses. It first tries several ways to write the same model (padded or packed, compiled or not,
dense or sparse embeddings) for a few steps each, and answers with the fastest.

usage: training.py FILE SETTINGS(JSON) DEVICE
"""

import json
import resource
import sys
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Batch:
    def __init__(self, tensors, settings):
        def bags(name):
            ends = tensors[f"{name}.ends"]
            starts = torch.cat([torch.zeros(1, dtype=torch.long), ends[:-1]])
            return tensors[f"{name}.rows"].long(), tensors[f"{name}.weights"], starts

        self.events, self.candidates, self.interests = bags("events"), bags("candidates"), bags("interests")
        self.age, self.country, self.gender = (tensors[f"{name}.rows"].long() for name in ("age", "country", "gender"))
        self.lengths = tensors["lengths"]
        self.targets = tensors["targets"].long()
        self.as_negative = tensors["as_negative"]
        self.extra = tensors["as_positive"][self.targets] - self.as_negative[self.targets]
        self.each = settings["predicts"] == "each"
        count, longest = len(self.lengths), int(self.lengths.max())
        self.shape = (count, longest)
        self.full = bool((self.lengths == longest).all())
        # Where each token stands in the padded batch, which places hold a token, and the last of each history.
        inside = torch.arange(longest)[None, :] < self.lengths[:, None]
        self.places = inside.flatten().nonzero().squeeze(1)
        self.tokens = torch.zeros(count * longest, dtype=torch.long)
        self.tokens[self.places] = torch.arange(len(self.places))
        self.lasts = self.lengths.cumsum(0) - 1
        self.last_places = torch.arange(count) * longest + self.lengths - 1
        self.key_mask = inside[:, None, None, :]


class Model(torch.nn.Module):
    """The dense tensors; embeddings come in as arguments."""

    def __init__(self, tensors, settings):
        super().__init__()
        self.layers, self.heads, self.temperature = settings["layers"], settings["heads"], settings["temperature"]
        self.names = {}
        for name, value in tensors.items():
            if name.split(".")[0] in ("encoder", "head", "ads") and "." in name:
                # As torch.nn.Linear keeps them.
                value = value.t().contiguous() if name.endswith(".weight") else value.clone()
                self.names[name] = name.replace(".", "_")
                self.register_parameter(self.names[name], torch.nn.Parameter(value))

    def get(self, name):
        return getattr(self, self.names[name])

    def affine(self, x, name):
        return F.linear(x, self.get(f"{name}.weight"), self.get(f"{name}.bias"))

    def norm(self, x, name):
        return F.layer_norm(x, x.shape[-1:], self.get(f"{name}.gain"), self.get(f"{name}.bias"))

    def split(self, x, count):
        return x.view(*count, -1, self.heads, x.shape[-1] // self.heads).transpose(-3, -2)

    def encode(self, x, batch, packed):
        """x is [tokens, d]: of the places of the padded batch, or packed, of the events alone."""
        (count, longest), d = batch.shape, x.shape[-1]
        packed = packed and not batch.full
        for layer in range(self.layers):
            name = f"encoder.{layer}."
            short = layer + 1 == self.layers and not batch.each
            normal = self.norm(x, name + "attention_norm")
            if short:
                lasts = batch.lasts if packed else batch.last_places
                weight, bias = self.get(name + "query_key_value.weight"), self.get(name + "query_key_value.bias")
                q = F.linear(normal[lasts], weight[:d], bias[:d]).view(count, 1, d)
                kv = F.linear(normal, weight[d:], bias[d:])
                kv = (kv[batch.tokens] if packed else kv).view(count, longest, 2 * d)
                q, k, v = self.split(q, (count,)), self.split(kv[..., :d], (count,)), self.split(kv[..., d:], (count,))
                mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=None if batch.full else batch.key_mask)
                mixed = mixed.transpose(1, 2).reshape(count, d)
                x = x[lasts]
            else:
                qkv = self.affine(normal, name + "query_key_value")
                qkv = (qkv[batch.tokens] if packed else qkv).view(count, longest, 3, self.heads, d // self.heads)
                q, k, v = qkv.permute(2, 0, 3, 1, 4)
                # Padding stands behind, where causal attention does not look.
                mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
                mixed = mixed.transpose(1, 2).reshape(count * longest, d)
                mixed = mixed[batch.places] if packed else mixed
            x = x + self.affine(mixed, name + "projection")
            wide = F.gelu(self.affine(self.norm(x, name + "feed_forward_norm"), name + "expand"), approximate="tanh")
            x = x + self.affine(wide, name + "contract")
        if batch.each and not packed and not batch.full:
            x = x[batch.places]
        return self.norm(x, "encoder.norm")

    def forward(self, events, candidates, interests, age, country, gender, batch, packed):
        state = self.encode(events, batch, packed)
        context = F.gelu(self.affine(interests, "head.context"), approximate="tanh")
        joined = torch.cat([state, context, age, country, gender], 1)
        hidden = F.gelu(self.affine(joined, "head.hidden"), approximate="tanh")
        queries = F.normalize(state + self.affine(hidden, "head.output"), dim=1)
        items = self.norm(candidates, "ads.norm")
        hidden = F.gelu(self.affine(items, "ads.hidden"), approximate="tanh")
        ads = F.normalize(items + self.affine(hidden, "ads.output"), dim=1)
        logits = queries @ ads.t() * (1.0 / self.temperature) + batch.as_negative
        return F.cross_entropy(logits.index_put((batch.rows, batch.targets), batch.extra, accumulate=True), batch.targets)


class Peer:
    """One way to write it: `packed`, `compiled`, `sparse`."""

    def __init__(self, tensors, settings, packed, compiled, sparse):
        self.batch = Batch(tensors, settings)
        self.batch.rows = torch.arange(len(self.batch.targets))
        self.packed, self.sparse, self.ids = packed, sparse, settings["id_buckets"]
        self.model = Model(tensors, settings)
        self.forward = torch.compile(self.model, dynamic=False) if compiled else self.model
        self.encoder = torch.compile(self.model.encode, dynamic=False) if compiled else self.model.encode
        table = tensors["table"]
        decays, plain = [], []
        for name, short in self.model.names.items():
            (decays if name.endswith(".weight") else plain).append(getattr(self.model, short))
        if sparse:
            # Item ids are the sparse part; all that is few rows is dense.
            self.id_table = torch.nn.Parameter(table[: self.ids].clone())
            self.rest = torch.nn.Parameter(table[self.ids :].clone())
            plain.append(self.rest)
        else:
            self.table = torch.nn.Parameter(table.clone())
            plain.append(self.table)
        groups = [{"params": decays, "weight_decay": settings["decay"]}, {"params": plain, "weight_decay": 0.0}]
        self.optimizers = [torch.optim.AdamW(groups, lr=settings["rate"], fused=True)]
        if sparse:
            self.optimizers.append(torch.optim.SparseAdam([self.id_table], lr=settings["rate"]))
        self.bags = {}

    def bag(self, name):
        rows, weights, starts = getattr(self.batch, name)
        if not self.sparse:
            return F.embedding_bag(rows, self.table, starts, mode="sum", per_sample_weights=weights)
        if name not in self.bags:
            # Split once: the batch is the same in every step.
            counts = torch.diff(starts, append=torch.tensor([len(rows)]))
            owners = torch.arange(len(starts)).repeat_interleave(counts)
            self.bags[name] = []
            for chosen, offset in ((rows < self.ids, 0), (rows >= self.ids, self.ids)):
                ends = torch.bincount(owners[chosen], minlength=len(starts)).cumsum(0)
                starts_of = torch.cat([torch.zeros(1, dtype=torch.long), ends[:-1]])
                self.bags[name].append((rows[chosen] - offset, weights[chosen], starts_of))
        parts = []
        for (rows, weights, starts), table, sparse in zip(self.bags[name], (self.id_table, self.rest), (True, False)):
            if len(rows):
                parts.append(
                    F.embedding_bag(rows, table, starts, mode="sum", per_sample_weights=weights, sparse=sparse)
                )
        return sum(parts[1:], parts[0])

    def row(self, rows):
        return F.embedding(rows - self.ids, self.rest) if self.sparse else F.embedding(rows, self.table)

    def events(self):
        events = self.bag("events")
        return events if self.packed or self.batch.full else events[self.batch.tokens]

    def step(self):
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        batch = self.batch
        head = [self.bag("interests"), self.row(batch.age), self.row(batch.country), self.row(batch.gender)]
        loss = self.forward(self.events(), self.bag("candidates"), *head, batch, self.packed)
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.item()

    def encode(self):
        with torch.inference_mode():
            # States are kept elsewhere, so they are brought to the CPU.
            self.encoder(self.events(), self.batch, self.packed).cpu()
        return 0.0


def timed(call, count):
    wall, cpu = time.perf_counter(), cpu_seconds()
    losses = [call() for _ in range(count)]
    return {"wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu, "losses": losses}


def fastest(tensors, settings):
    """The fastest way for each of the two jobs; on a CPU by CPU time, which other work on the machine disturbs least."""
    ways, clock = [], "cpu" if torch.get_default_device().type == "cpu" else "wall"
    # Without padding there is nothing to pack.
    for packed in (False,) if Batch(tensors, settings).full else (False, True):
        for compiled in (False, True):
            for sparse in (False, True):
                if compiled and sparse and clock == "wall":
                    continue  # Time on a GPU is short, and compiling takes half a minute each time.
                peer = Peer(tensors, settings, packed, compiled, sparse)
                try:
                    [peer.step() for _ in range(2)], [peer.encode() for _ in range(2)]
                except Exception as error:  # An option that this release cannot run is left out, and said so.
                    print(f"torch: packed {packed} compiled {compiled} sparse {sparse}: {error}"[:300], file=sys.stderr)
                    continue
                step = min(timed(peer.step, 2)[clock] for _ in range(3)) / 2
                encode = min(timed(peer.encode, 2)[clock] for _ in range(3)) / 2
                ways.append((step, encode, (packed, compiled, sparse)))
                print(
                    f"torch: packed {packed} compiled {compiled} sparse {sparse}:"
                    f" step {1e3 * step:.1f} ms, encode {1e3 * encode:.1f} ms",
                    file=sys.stderr,
                )
    return min(ways)[2], min(ways, key=lambda way: way[1])[2]


def main():
    path, settings, device = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
    torch.set_default_device(device)
    torch.manual_seed(1)
    tensors = load_file(path, device=device)
    train, encode = fastest(tensors, settings)
    trainer, encoder = Peer(tensors, settings, *train), Peer(tensors, settings, *encode)
    first = trainer.step()
    encoder.encode()
    greeting = {"first_loss": first, "ways": [train, encode], "version": torch.__version__}
    print(json.dumps(greeting), flush=True)
    for line in sys.stdin:
        command, count = line.split()
        call = trainer.step if command == "train" else encoder.encode
        print(json.dumps(timed(call, int(count))), flush=True)


main()
