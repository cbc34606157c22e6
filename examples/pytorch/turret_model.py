"""Turret's two-tower model in plain PyTorch: train it here, import it with `turret model import`.

Built from what `turret model tensors --config FILE --json` prints. README.md beside this file has the names, the shapes
and the meaning of every row; parity/ proves that Turret computes the same. Needs torch, safetensors and xxhash.
"""

import json

import torch
import torch.nn.functional as F
import xxhash
from safetensors.torch import save_file
from torch import nn


class Features:
    """Rows of the embedding table, as lists of (row, weight), out of ids and words.

    `items` are dicts of the columns of items.parquet, by id; `seen` are the ids of the training part's events. An item
    that training never saw has no rows for its id: they would be those of others.
    """

    def __init__(self, description, items, seen):
        known = description["features"]
        self.items, self.seen = items, seen
        self.timed = description["made_for"]["timed"]
        self.length_max = description["made_for"]["settings"]["history_length_max"]
        self.content_dimension = known["content_dimension"]
        self.seeds, self.age_firsts = known["hash_seeds"], known["age_firsts"]
        self.blocks = {block["name"]: (block["first"], block["rows"]) for block in known["table"]}
        self.words = {
            name: {word: number for number, word in enumerate(known[name])}
            for name in ("interests", "countries", "genders", "event_types")
        }

    def hashed(self, block, seed, text):
        first, rows = self.blocks[block]
        return first + (xxhash.xxh3_64_intdigest(text.encode(), seed=seed) * rows >> 64)

    def bucket(self, block, number):
        """Row `number` of a block; the last of its rows where there is none, or its word is unknown."""
        first, rows = self.blocks[block]
        return first + (rows - 1 if number is None else number)

    def interests(self, interests):
        """The mean of the interests that the model knows, weighted by confidence."""
        first, _ = self.blocks["interests"]
        numbers = self.words["interests"]
        found = [(first + numbers[i["id"]], i["confidence"]) for i in interests or () if i["id"] in numbers]
        total = sum(confidence for _, confidence in found)
        return [(row, confidence / total) for row, confidence in found]

    def price(self, price):
        if price is None:
            return self.bucket("prices", None)
        # Buckets of half an octave, in 32 bits as Turret has it.
        half_octaves = 2 * torch.log2(1 + torch.tensor(price, dtype=torch.float32))
        return self.bucket("prices", min(int(half_octaves), self.blocks["prices"][1] - 2))

    def item(self, item):
        rows = []
        if item["item_id"] in self.seen:
            rows += [(self.hashed("ids", seed, item["item_id"]), 1.0) for seed in self.seeds["ids"]]
        rows += self.interests(item["interests"])
        if item["advertiser_id"] is not None:
            rows.append((self.hashed("advertisers", self.seeds["advertisers"], item["advertiser_id"]), 1.0))
        return rows + [(self.price(item["price"]), 1.0)]

    def content(self, item):
        """The content embedding, zeros where there is none."""
        values = item and item["embedding"]
        return values if values and len(values) == self.content_dimension else [0.0] * self.content_dimension

    def history(self, events):
        """The latest events, oldest first: of each its rows and its item, None where the catalogue lacks it."""
        events, before, history = events[-self.length_max :], None, []
        for place, event in enumerate(events):
            item = self.items.get(event["item_id"])
            rows = self.item(item) if item else [(self.price(None), 1.0)]
            rows.append((self.bucket("event_types", self.words["event_types"][event["event_type"]]), 1.0))
            gap = None
            if self.timed and before is not None:
                # Octaves of whole seconds.
                seconds = max(event["timestamp_ms"] - before, 0) // 1000
                gap = min((seconds + 1).bit_length() - 1, self.blocks["gaps"][1] - 2)
            rows.append((self.bucket("gaps", gap), 1.0))
            rows.append((self.bucket("positions", len(events) - 1 - place), 1.0))
            before = event["timestamp_ms"]
            history.append((rows, item))
        return history

    def query(self, query):
        """The rows of the words and of their character trigrams, `<` and `>` being the borders of a word."""
        if not query or self.blocks["queries"][1] == 0:
            return []
        tokens = []
        for word in "".join(c if c.isalnum() else " " for c in query).split()[:32]:
            word = word.lower()
            bounded = f"<{word[:32]}>"
            tokens += [f"#{bounded[at:at + 3]}" for at in range(len(bounded) - 2)] + [word]
        return [self.hashed("queries", self.seeds["queries"], token) for token in tokens]

    def demographics(self, user):
        age = user.get("age")
        if age is not None:
            age = sum(age >= first for first in self.age_firsts)
        country, gender = (self.words[f][user.get(n)] if user.get(n) in self.words[f] else None
                           for f, n in (("countries", "country"), ("genders", "gender")))
        return self.bucket("ages", age), self.bucket("countries", country), self.bucket("genders", gender)


class Layer(nn.Module):
    """A Transformer layer whose norms come first."""

    def __init__(self, width, heads, feed_forward):
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, feed_forward)
        self.contract = nn.Linear(feed_forward, width)

    def forward(self, x, mask):
        rows, length, width = x.shape
        qkv = self.query_key_value(self.attention_norm(x)).view(rows, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.projection(mixed.transpose(1, 2).reshape(rows, length, width))
        return x + self.contract(gelu(self.expand(self.feed_forward_norm(x))))


class TurretModel(nn.Module):
    """The network. Where a module stands is what its tensors are called."""

    def __init__(self, description, features):
        super().__init__()
        self.settings, self.features = description["made_for"]["settings"], features
        width, hidden = self.settings["dimension"], self.settings["head_hidden"]
        self.contextual = self.settings["kind"] == "contextual"
        attends = self.contextual and self.settings["fusion"] == "cross_attention"
        rows = sum(block["rows"] for block in description["features"]["table"])
        self.table = nn.Parameter(0.05 * torch.randn(rows, width))
        self.register_buffer("touched", torch.zeros(rows, dtype=torch.bool), persistent=False)
        layer = lambda: Layer(width, self.settings["heads"], self.settings["feed_forward"])
        layers = {str(number): layer() for number in range(self.settings["layers"])}
        self.encoder = nn.ModuleDict({**layers, "norm": nn.LayerNorm(width)})
        if features.content_dimension:
            self.items = nn.ModuleDict({"content": nn.Linear(features.content_dimension, width, bias=False)})
        self.head = nn.ModuleDict()
        self.head.register_parameter("no_history", nn.Parameter(0.05 * torch.randn(1, width)))
        if self.contextual:
            self.head["context"] = nn.Linear((2 if self.settings["subject_item"] else 1) * width, width)
        if attends:
            self.head["attention"] = nn.ModuleDict(
                {
                    "query": nn.Linear(width, width),
                    "key": nn.Linear(width, width, bias=False),
                    "value": nn.Linear(width, width, bias=False),
                    "output": nn.Linear(width, width),
                }
            )
        self.head["hidden"] = nn.Linear((4 + self.contextual + attends) * width, hidden)
        self.head["output"] = nn.Linear(hidden, width)
        self.ads = nn.ModuleDict(
            {"norm": nn.LayerNorm(width), "hidden": nn.Linear(width, hidden), "output": nn.Linear(hidden, width)}
        )

    def bags(self, bags):
        """Weighted sums of table rows, [bags, width]; an empty bag sums to zero."""
        flat = [entry for bag in bags for entry in bag]
        rows = torch.tensor([row for row, _ in flat], dtype=torch.long)
        weights = torch.tensor([weight for _, weight in flat])
        owners = torch.tensor([number for number, bag in enumerate(bags) for _ in bag], dtype=torch.long)
        if self.training:
            self.touched[rows] = True
        return torch.zeros(len(bags), self.table.shape[1]).index_add(0, owners, self.table[rows] * weights[:, None])

    def item_vectors(self, bags, items):
        vectors = self.bags(bags)
        if self.features.content_dimension and items:
            vectors = vectors + self.items["content"](torch.tensor([self.features.content(item) for item in items]))
        return vectors

    def encode(self, histories):
        """The states after every event, [histories, longest, width], and which of them are there."""
        histories = [self.features.history(events) for events in histories]
        longest = max(1, max(len(history) for history in histories))
        inside = torch.tensor([[at < len(history) for at in range(longest)] for history in histories])
        events = [event for history in histories for event in history]
        x = torch.zeros(*inside.shape, self.table.shape[1])
        x[inside] = self.item_vectors([rows for rows, _ in events], [item for _, item in events])
        mask = inside[:, None, None, :].repeat(1, 1, longest, 1)
        if self.settings["attention"] == "causal":
            mask = mask & torch.ones(longest, longest, dtype=torch.bool).tril()
        # What attends to nothing is not a number; nobody looks at the states of an empty history.
        mask[..., 0] = True
        for number in range(self.settings["layers"]):
            x = self.encoder[str(number)](x, mask)
        return self.encoder["norm"](x), inside

    def context_vectors(self, contexts):
        """The context layer, zeros where there is no context that the model can make something of."""
        bags, subjects, given = [], [], []
        for context in contexts:
            subject = (context or {}).get("subject") or {}
            known = self.features.items.get(subject.get("item_id"))
            interests = self.features.interests(subject.get("interests"))
            if known and not subject.get("interests"):
                interests = self.features.interests(known["interests"])
            query = self.features.query((context or {}).get("query"))
            if not self.training:
                # A word that training never met says nothing.
                query = [row for row in query if self.table[row].any()]
            bags.append(interests + [(row, 1 / len(query)) for row in query])
            subjects.append(known if self.settings["subject_item"] else None)
            given.append(bool(bags[-1]) or subjects[-1] is not None)
        vectors = self.bags(bags)
        if self.settings["subject_item"]:
            rows = [self.features.item(item) if item else [] for item in subjects]
            vectors = torch.cat([vectors, self.item_vectors(rows, subjects)], 1)
        return gelu(self.head["context"](vectors)) * torch.tensor(given)[:, None]

    def queries(self, histories, contexts, users):
        """Query embeddings, [rows, width], of length 1; a history, a context (or None) and a user for each row."""
        states, inside = self.encode(histories)
        lengths = inside.sum(1)
        last = states[torch.arange(len(lengths)), (lengths - 1).clamp(min=0)]
        query = torch.where(lengths[:, None] > 0, last, self.head.no_history)
        parts = [query]
        if self.contextual:
            context = self.context_vectors(contexts)
            if "attention" in self.head:
                attended = self.attend(context, states, inside)
                query = query + attended
                parts.append(attended)
            parts.append(context)
        rows = zip(*(self.features.demographics(user) for user in users))
        parts += [self.bags([[(row, 1.0)] for row in column]) for column in rows]
        hidden = gelu(self.head["hidden"](torch.cat(parts, 1)))
        return unit(query + self.head["output"](hidden))

    def attend(self, context, states, inside):
        """What the events say to the context; of an empty history, the output's bias."""
        attention, heads = self.head["attention"], self.settings["heads"]
        split = lambda x: x.view(len(x), -1, heads, x.shape[-1] // heads).transpose(1, 2)
        mask = inside.clone()
        mask[:, 0] = True
        query, key, value = attention["query"](context)[:, None], attention["key"](states), attention["value"](states)
        mixed = F.scaled_dot_product_attention(
            split(query), split(key), split(value), attn_mask=mask[:, None, None, :]
        )
        mixed = mixed.transpose(1, 2).flatten(1) * inside.any(1, keepdim=True)
        return attention["output"](mixed)

    def ad_vectors(self, items):
        """Ad embeddings, [rows, width], of length 1."""
        x = self.ads["norm"](self.item_vectors([self.features.item(item) for item in items], items))
        return unit(x + self.ads["output"](gelu(self.ads["hidden"](x))))

    @torch.no_grad()
    def forget_untouched(self):
        """Makes zeros of the rows that training never touched: so Turret knows them."""
        self.table[~self.touched] = 0.0


def gelu(x):
    return F.gelu(x, approximate="tanh")


def unit(x):
    return x / (x.square().sum(1, keepdim=True) + 1e-12).sqrt()


def save_weights(model, description, path):
    """Writes the weights under Turret's names: matrices are [in, out], and a norm's weight is its gain."""
    tensors = {"table": model.table, "head.no_history": model.head.no_history}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            tensors[f"{name}.weight"] = module.weight.T
            if module.bias is not None:
                tensors[f"{name}.bias"] = module.bias
        elif isinstance(module, nn.LayerNorm):
            tensors[f"{name}.gain"], tensors[f"{name}.bias"] = module.weight, module.bias
    tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(tensors, path, metadata={"turret": json.dumps(description["made_for"])})
