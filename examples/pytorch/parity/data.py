"""Writes the small data set of the parity test into data/ beside this file; its files are committed.

usage: data.py
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

DIR = Path(__file__).parent / "data"
DAY = 86_400_000
START = 1_700_000_000_000
INTERESTS = ["lamps", "rugs", "chairs", "déco", "tools"]


def item(number):
    interests = [{"id": INTERESTS[number % 5], "confidence": 0.9}]
    if number % 3 == 0:
        interests.append({"id": INTERESTS[(number + 2) % 5], "confidence": 0.35})
    return {
        "item_id": f"i{number}",
        "advertiser_id": None if number % 7 == 6 else f"shop {number % 4}",
        # The last items have neither interests nor prices nor content.
        "interests": interests if number < 22 else [],
        "price": 0.75 * number**2 if number < 22 else None,
        "embedding": [0.1 * number, 1.0 - 0.05 * number, -0.3] if number < 22 else None,
    }


def event(user, place):
    return {
        "user_id": f"u{user}",
        # Items 18 to 23 stand in no training event.
        "item_id": f"i{(7 * user + 5 * place + place * place) % 18}",
        "event_type": ["view", "view", "add_to_cart", "checkout", "signup"][(user + place) % 5],
        "timestamp_ms": START + user * 3_600_000 + place * place * place * 977_000,
    }


def user(number):
    return {
        "user_id": f"u{number}",
        "age": None if number % 4 == 3 else 16 + 9 * number,
        "country": [None, "BR", "US", "DE"][number % 4],
        "gender": ["female", "male", None][number % 3],
    }


def main():
    interests = pa.list_(pa.struct([("id", pa.string()), ("confidence", pa.float32())]))
    items = pa.schema(
        [
            ("item_id", pa.string()),
            ("advertiser_id", pa.string()),
            ("interests", interests),
            ("price", pa.float32()),
            ("embedding", pa.list_(pa.float32())),
        ]
    )
    users = pa.schema([("user_id", pa.string()), ("age", pa.int32()), ("country", pa.string()), ("gender", pa.string())])
    DIR.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist([item(number) for number in range(24)], items), DIR / "items.parquet")
    pq.write_table(pa.Table.from_pylist([user(number) for number in range(8)], users), DIR / "users.parquet")
    events = [event(user, place) for user in range(8) for place in range(3 + user)]
    pq.write_table(pa.Table.from_pylist(events), DIR / "events.parquet")


main()
