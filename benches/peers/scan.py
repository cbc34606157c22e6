"""faiss's flat index over the vectors that crates/index/benches/scan.rs wrote.

Reads commands from stdin, `K BATCH TURNS`, and answers each with a line of JSON: CPU seconds of searching for all queries TURNS
times, BATCH of them in a call, and the rows found for the first query.

usage: scan.py ROWS QUERIES DIMENSION
"""

import json
import sys
import time

import faiss
import numpy as np


def main():
    rows, queries, dimension = sys.argv[1], sys.argv[2], int(sys.argv[3])
    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(dimension)
    index.add(np.fromfile(rows, dtype="<f4").reshape(-1, dimension))
    queries = np.fromfile(queries, dtype="<f4").reshape(-1, dimension)
    print(json.dumps({"faiss": faiss.__version__, "compiled": faiss.get_compile_options()}), flush=True)
    for line in sys.stdin:
        k, batch, turns = map(int, line.split())
        calls = [queries[at : at + batch] for at in range(0, len(queries), batch)]
        began = time.process_time()
        for _ in range(turns):
            found = [index.search(call, k)[1] for call in calls]
        cpu = time.process_time() - began
        print(json.dumps({"cpu_s": cpu, "first": found[0][0].tolist()}), flush=True)


main()
