"""Prints the tables of docs/performance.md of what `just bench-index` and `just bench-filters` measured: tables.py DOCS_RESULTS

Each table is headed by the name that its rows have in the JSON. A ratio that misses its aim is bold."""

import json
import signal
import sys
from pathlib import Path

GRAPHS = ["hnswlib", "faiss_hnsw", "usearch"]
OTHERS = ["faiss_ivfpq", "faiss_flat"]
OURS = ["turret", "turret_cells", "turret_scan"]
HEADS = {
    "turret": "a walk",
    "turret_cells": "cells",
    "turret_scan": "scan",
    "hnswlib": "hnswlib",
    "faiss_hnsw": "faiss HNSW",
    "usearch": "usearch",
    "faiss_ivfpq": "IVF-PQ, refined",
    "faiss_flat": "flat",
}
# The aims: beside the best graph of others, beside hnswlib in building, beside a scan of what passes, and beside a search without a filter.
# Two measurements of the same scan differ by less than a twentieth.
OVER_GRAPH, OVER_HNSWLIB, OVER_SCAN, OVER_UNFILTERED = 1.1, 1.2, 1.05, 3.0


def rows_of(path: Path) -> dict[str, dict]:
    """The figures of each row by its name, and `chosen` where the row says what a search was answered by."""
    try:
        rows = json.loads(path.read_text())["rows"]
        return {row["name"]: row["mean"] | {"chosen": row.get("settings", {}).get("chosen")} for row in rows}
    except OSError as error:
        sys.exit(f"error: {path}: {error.strerror}")
    except (ValueError, KeyError, TypeError) as error:
        sys.exit(f"error: {path}: not a file of docs/results: {error}")


def table(head: list[str], rows: list[list[str]]) -> None:
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for cells in rows:
        print("| " + " | ".join(cells) + " |")
    print()


def bold_above(ratio: float, aim: float) -> str:
    text = f"{ratio:.2f}"
    return f"**{text}**" if float(text) > aim else text


def micros(figures: dict, what: str) -> str:
    return f"{figures[what + '_us']:,.1f}" if what + "_us" in figures else "none"


def index_tables(rows: dict[str, dict]) -> None:
    datasets = list(dict.fromkeys(name.split(": recall@")[0] for name in rows if ": recall@" in name))
    for dataset in datasets:
        if dataset.startswith("scaling"):
            continue
        columns = [*OURS, *GRAPHS, *OTHERS]
        lines = []
        for name, figures in rows.items():
            if not name.startswith(dataset + ": recall@"):
                continue
            recall = name.removeprefix(dataset + ": recall").replace(" of ", ", ")
            ratios = [figures.get(key) for key in ("over_best_graph", "over_best_graph_net")]
            over = [bold_above(ratio, OVER_GRAPH) for ratio in ratios if ratio is not None]
            lines.append(
                [recall, HEADS[figures["chosen"].replace("-", "_")], *(micros(figures, what) for what in columns), ", ".join(over) or "none"]
            )
        print(f"{dataset}:\n")
        head = ["recall", "Turret chooses", *(HEADS[what] for what in columns), "over the best graph, net of a call"]
        table(head, lines)


def build_tables(rows: dict[str, dict]) -> None:
    lines = []
    for name, figures in rows.items():
        if ": building " in name and "build_cpu_s" in figures:
            dataset, what = name.split(": building ")
            lines.append([dataset, what, f"{figures['build_cpu_s']:.1f}", f"{figures['bytes_per_ad']:.0f}"])
    table(["shard", "library", "CPU s of building", "bytes an ad"], lines)
    lines = [
        [
            name.removesuffix(": building, over hnswlib"),
            bold_above(figures["build_ratio"], OVER_HNSWLIB),
            f"{figures['build_ratio_by_default']:.2f}" if "build_ratio_by_default" in figures else "has a graph",
        ]
        for name, figures in rows.items()
        if name.endswith(": building, over hnswlib")
    ]
    table(["shard", "building a graph, over hnswlib", "by default"], lines)


def filter_tables(rows: dict[str, dict]) -> None:
    worlds = [name.removesuffix(", no filter") for name in rows if name.endswith(", no filter")]
    for world in worlds:
        none = rows[world + ", no filter"]
        lines = [["none", "all", f"{none['recall@100']:.4f}", f"{none['cpu_us']:.0f}", f"{none['scan_cpu_us']:.0f}", f"{none['of_scan']:.2f}", "1"]]
        for name, figures in rows.items():
            if not name.startswith(world + ", ") or "of_unfiltered" not in figures:
                continue
            relation, share = name.removeprefix(world + ", ").split(", ")
            # An opposed filter may cost what it costs to scan what passes.
            aim = float("inf") if relation == "opposed" else OVER_UNFILTERED
            lines.append(
                [
                    relation,
                    share,
                    f"{figures['recall@100']:.4f}",
                    f"{figures['cpu_us']:.0f}",
                    f"{figures['scan_cpu_us']:.0f}",
                    bold_above(figures["of_scan"], OVER_SCAN),
                    bold_above(figures["of_unfiltered"], aim),
                ]
            )
        print(f"{world}:\n")
        table(["filter", "passes", "recall@100", "CPU µs", "scan of what passes", "/ scan", "/ no filter"], lines)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    results = Path(sys.argv[1])
    index = rows_of(results / "index.json")
    index_tables(index)
    build_tables(index)
    filter_tables(rows_of(results / "filters.json"))


if __name__ == "__main__":
    # Whoever closed the output has what they wanted.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    main()
