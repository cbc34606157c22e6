"""One library's index over the vectors that crates/index/benches/index.rs wrote: hnswlib, faiss or usearch.

Builds it, greets with a line of JSON, and then reads commands from stdin, `K PARAMETER TURNS PROCESSES`, and answers each with a line
of JSON: the mean recall@K, and microseconds of CPU and of the wall clock for one query. Every query is a call of its own on one
thread. Where PROCESSES is more than one, so many forks ask at once, since threads of Python would wait for each other.

usage: index.py LIBRARY ROWS QUERIES TRUTH DIMENSION TRUTH_K BUILD, where BUILD is a number: the degree, or of `ivfpq` the number of lists
"""

import gc, json, os, sys, time

import numpy as np

THREADS = 2
BUILD_LIST = 100
# Of a call that finds nothing.
EMPTY_CALLS = 20_000


def hnswlib_(rows, degree):
    import hnswlib

    index = hnswlib.Index(space="ip", dim=rows.shape[1])
    index.init_index(max_elements=len(rows), M=degree, ef_construction=BUILD_LIST, random_seed=1)
    index.add_items(rows, num_threads=THREADS)
    index.set_num_threads(1)
    return index.set_ef, lambda query, k: index.knn_query(query, k, num_threads=1)[0][0], hnswlib.__version__ if hasattr(hnswlib, "__version__") else ""


def faiss_hnsw(rows, degree):
    import faiss

    faiss.omp_set_num_threads(THREADS)
    index = faiss.IndexHNSWFlat(rows.shape[1], degree, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = BUILD_LIST
    index.add(rows)
    faiss.omp_set_num_threads(1)

    def tune(ef):
        index.hnsw.efSearch = ef

    return tune, lambda query, k: index.search(query, k)[1][0], faiss.__version__


def usearch_(rows, degree):
    import usearch
    from usearch.index import Index

    index = Index(ndim=rows.shape[1], metric="ip", dtype="f32", connectivity=degree, expansion_add=BUILD_LIST)
    index.add(np.arange(len(rows)), rows, threads=THREADS)

    def tune(ef):
        index.expansion_search = ef

    return tune, lambda query, k: index.search(query, k, threads=1).keys, usearch.__version__


def faiss_ivfpq(rows, lists):
    import faiss

    faiss.omp_set_num_threads(THREADS)
    index = faiss.index_factory(rows.shape[1], f"IVF{lists},PQ{rows.shape[1] // 2}x4fs,RFlat", faiss.METRIC_INNER_PRODUCT)
    index.train(rows)
    index.add(rows)
    faiss.omp_set_num_threads(1)

    def tune(parameter):
        # What is ranked anew, and how many lists are read, in one number.
        index.k_factor, faiss.downcast_index(index.base_index).nprobe = divmod(parameter, 100_000)

    return tune, lambda query, k: index.search(query, k)[1][0], faiss.__version__


def faiss_flat(rows, _):
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    return lambda _: None, lambda query, k: index.search(query, k)[1][0], faiss.__version__


LIBRARIES = {"hnswlib": hnswlib_, "faiss-hnsw": faiss_hnsw, "usearch": usearch_, "faiss-ivfpq": faiss_ivfpq, "faiss-flat": faiss_flat}


def anonymous_bytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) * 1024


def timed(search, queries, k, turns):
    """What searching for all takes, in seconds of CPU and of the wall clock, and what was found in the last turn."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(turns):
        found = [search(query, k) for query in queries]
    return time.process_time() - cpu, time.perf_counter() - wall, found


def at_once(search, queries, k, turns, processes):
    pipes = []
    for _ in range(processes):
        read, write = os.pipe()
        if os.fork() == 0:
            cpu, wall, _ = timed(search, queries, k, turns)
            os.write(write, json.dumps([cpu, wall]).encode())
            os._exit(0)
        os.close(write)
        pipes.append(read)
    times = [json.loads(os.read(pipe, 1024)) for pipe in pipes]
    for pipe in pipes:
        os.close(pipe)
        os.wait()
    return sum(cpu for cpu, _ in times) / processes, max(wall for _, wall in times)


def main():
    library, rows, queries, truth, dimension, truth_k, build = sys.argv[1:]
    dimension, truth_k, make = int(dimension), int(truth_k), LIBRARIES[library]
    rows = np.memmap(rows, dtype="<f4", mode="r").reshape(-1, dimension)
    queries = np.fromfile(queries, dtype="<f4").reshape(-1, 1, dimension)
    truth = np.fromfile(truth, dtype="<u4").reshape(-1, truth_k)
    one = rows[:1] if library in ("hnswlib", "usearch", "faiss-hnsw") else None
    # The library is loaded and has its threads before anything is counted.
    _, call, _ = LIBRARIES[library if one is not None else "faiss-flat"](rows[:1], 16)
    call_us = timed(call, [queries[0]] * EMPTY_CALLS, 1, 1)[0] * 1e6 / EMPTY_CALLS
    gc.collect()
    memory, wall, cpu = anonymous_bytes(), time.perf_counter(), time.process_time()
    tune, search, version = make(rows, int(build))
    built = {"build_cpu_s": time.process_time() - cpu, "build_wall_s": time.perf_counter() - wall}
    gc.collect()
    print(json.dumps({**built, "bytes": anonymous_bytes() - memory, "call_us": call_us, "version": version}), flush=True)
    for line in sys.stdin:
        k, parameter, turns, processes = map(int, line.split())
        tune(parameter)
        # An exact scan takes milliseconds, and is never wrong.
        asked = queries[: 64 if library == "faiss-flat" else None]
        if processes > 1:
            cpu, wall = at_once(search, asked, k, turns, processes)
            recall = None
        else:
            cpu, wall, found = timed(search, asked, k, turns)
            hits = sum(len(np.intersect1d(rows, best[:k])) for rows, best in zip(found, truth))
            recall = hits / (k * len(found))
        calls = turns * len(asked)
        print(json.dumps({"recall": recall, "cpu_us": cpu * 1e6 / calls, "wall_us": wall * 1e6 / calls}), flush=True)


main()
