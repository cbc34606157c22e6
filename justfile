# What one does with this repository. `just` lists the recipes; `just ci` is all that CI runs.

set shell := ["bash", "-euo", "pipefail", "-c"]

# Tools that the machine lacked are here, see .ci/tools.
export PATH := justfile_directory() / "target/tools/bin:" + justfile_directory() / "target/tools/local/bin:" + env("PATH")

turret := "target/release/turret"

# List the recipes
default:
    @just --list --unsorted

# Install the tools that are missing, into target/tools
setup:
    @.ci/tools

# Build the program, optimised
build:
    cargo build --release --locked

# Build the program, benchmark and test with `--device cuda:0`, into target/cuda; needs no GPU, and fetches nvcc if there is none
build-cuda capability="90":
    #!/usr/bin/env bash
    set -euo pipefail
    if [ -z "${CUDA_HOME:-}" ]; then
        toolkit=$PWD/target/cuda/toolkit
        [ -d "$toolkit/python" ] || python3 -m venv "$toolkit/python"
        "$toolkit/python/bin/pip" install --quiet --no-deps nvidia-curand nvidia-{cuda-nvcc,cuda-runtime,cublas,cuda-cccl,nvvm,cuda-crt,cuda-nvrtc}'==13.0.*'
        export CUDA_HOME=$(echo "$toolkit"/python/lib/python3*/site-packages/nvidia/cu13)
        chmod +x "$CUDA_HOME"/bin/* "$CUDA_HOME"/nvvm/bin/*
        ln -sfn lib "$CUDA_HOME/lib64"
        for library in "$CUDA_HOME"/lib/lib*.so.*; do ln -sf "${library##*/}" "${library%%.so.*}.so"; done
        # The driver's own library is only where a GPU is: one to link with, of empty functions.
        cargo fetch --locked --quiet
        bindings=$(ls "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/cudarc-*/src/driver/sys/mod.rs | tail -n 1)
        sed -nE 's/^ *pub unsafe fn (cu[A-Z]\w*).*/void \1(void) {}/p' "$bindings" | sort -u |
            cc -shared -fPIC -o "$CUDA_HOME/lib/libcuda.so" -Wl,-soname,libcuda.so.1 -x c -
    fi
    export CUDA_PATH=$CUDA_HOME CUDA_ROOT=$CUDA_HOME CUDA_COMPUTE_CAP={{ capability }} CUDARC_CUDA_VERSION=13000
    export PATH=$CUDA_HOME/bin:$PATH
    # The linker looks there too.
    export LIBRARY_PATH=$CUDA_HOME/lib
    built() { cargo "$@" --locked --features cuda --target-dir target/cuda; }
    built build --release
    built bench --no-run --bench training
    built test --no-run --release -p turret-model --lib
    newest() { ls -t target/cuda/release/deps/"$1"-* | grep -v '\.' | head -n 1; }
    ln -sf "../../$(newest training)" target/cuda/bench-training
    ln -sf "../../$(newest turret_model)" target/cuda/test-model

# Run every test
test: setup
    cargo nextest run --workspace --locked
    cargo test --doc --workspace --locked

# Fuzz a target of fuzz/ for some seconds, on the stable toolchain; inputs lie in fuzz/corpus, what failed in fuzz/artifacts
fuzz target="filter_text" seconds="60":
    #!/usr/bin/env bash
    set -euo pipefail
    # What cargo-fuzz passes without a sanitizer: our crates have no unsafe code for one to watch.
    sancov="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
    sancov+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
    export RUSTFLAGS="--cfg fuzzing $sancov -Cdebug-assertions -Ccodegen-units=1"
    host=$(rustc -vV | sed -n 's/^host: //p')
    cargo build --manifest-path fuzz/Cargo.toml --locked --release --target "$host" --bin {{ target }}
    mkdir -p fuzz/{corpus,artifacts}/{{ target }}
    "fuzz/target/$host/release/{{ target }}" fuzz/corpus/{{ target }} -artifact_prefix=fuzz/artifacts/{{ target }}/ -max_total_time={{ seconds }}

# Check the format, clippy, licences and doors, unused dependencies, spelling
lint: setup
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    # What no build here needs has a licence too.
    cargo fetch --locked --quiet
    cargo deny --locked --offline check bans licenses sources
    cargo shear --locked --offline
    typos

# Check the documentation of every item, private ones too
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked

# The whole job on made-up data: train, publish, serve, retrieve
quickstart: build
    {{ turret }} quickstart

# Start three nodes that serve the quickstart's generation as one; Ctrl-C stops them
cluster: build
    #!/usr/bin/env bash
    set -euo pipefail
    nodes=()
    # Ends by itself: a node that was asked to stop lets running requests end and goes.
    stop() { [ ${#nodes[@]} -eq 0 ] || { kill "${nodes[@]}" 2>/dev/null || true; wait "${nodes[@]}" || true; }; }
    trap stop EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    for node in a b c; do
        {{ turret }} serve --config cluster-config/local-3.toml --node "$node" &
        nodes+=("$!")
    done
    # A node that ends by itself, because its port is taken or nothing is published yet, takes the others with it.
    wait -n "${nodes[@]}"

# Globo's news clicks, from the check to a published generation; TURRET_DATA names the directory of the data sets
globo: build
    {{ turret }} data check --config cluster-config/globo.toml
    {{ turret }} train --config cluster-config/globo.toml
    {{ turret }} evaluate --config cluster-config/globo.toml
    {{ turret }} publish --config cluster-config/globo.toml
    @echo "serve it: {{ turret }} serve --config cluster-config/globo.toml"

# Measure what publishing and rolling back cost the requests that go on, into docs/results/publish.json
bench-publish: quickstart
    python3 benches/publish.py {{ turret }} docs/results/publish.json

# Measure how many events are acknowledged over HTTP, and what requests cost meanwhile, into docs/results/ingest.json
bench-ingest: quickstart
    python3 benches/ingest.py {{ turret }} docs/results/ingest.json

# Measure how fast a refresh is beside `turret encode`, and what it costs requests, into docs/results/refresh.json
bench-refresh rounds="5": quickstart
    python3 benches/refresh.py {{ turret }} docs/results/refresh.json {{ rounds }}

# Measure a plan of studies/ by its name, such as `just study globo`; what is measured already is kept
study name *arguments: build
    # Plans that use the marketplace find it where the quickstart puts it.
    [ -d .turret/quickstart/marketplace ] || {{ turret }} synth .turret/quickstart/marketplace
    {{ turret }} study "studies/{{ name }}.toml" {{ arguments }}

# One page over all figures of docs/results, in .turret/report/index.html
report: build
    {{ turret }} report .turret/report docs/results/*.json

# What CI checks on real data: the data sets as they lie, a short training on MovieLens, and a small cut of the globo run
real: build
    #!/usr/bin/env bash
    set -euo pipefail
    : "${TURRET_DATA:?must name the directory of the real data sets}"
    for set in globo ml-1m amazon-sports amazon-beauty taobao; do
        {{ turret }} data check --config "cluster-config/$set.toml"
    done
    # The committed file, in a directory and on ports of its own, with few cases.
    mkdir -p .turret
    dir=$(mktemp -d .turret/real.XXXXXX)
    node=
    stop() { [ -z "$node" ] || { kill "$node" 2>/dev/null || true; wait "$node" || true; }; rm -rf "$dir"; }
    trap stop EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    # A tenth of the training of the study must beat counting (last-item Markov: NDCG@10 .1259) by a distance.
    config=$dir/ml-1m.toml
    sed -e "s|^data_dir = .*|data_dir = \"$dir/ml-1m\"|" -e 's|^validation_every_steps = .*||' cluster-config/ml-1m.toml >"$config"
    {{ turret }} train --config "$config" --only history-only --steps 900
    {{ turret }} evaluate --config "$config" --json >"$dir/ml-1m.json"
    awk -F '[ ,]+' '/"name":/ { own = /"history only"/ } own && /"ndcg@10":/ { found = $3; exit }
        END { print "NDCG@10 " found ", at least .14 is asked for"; exit !(found >= 0.14) }' "$dir/ml-1m.json"
    config=$dir/globo.toml
    sed -e "s|^data_dir = .*|data_dir = \"$dir\"|" -e 's|^\[evaluation\]$|&\ncases_max = 2_000|' \
        -e 's|127\.0\.0\.1:7|127.0.0.1:8|' cluster-config/globo.toml >"$config"
    for changed in "data_dir = \"$dir\"" "cases_max = 2_000" 'http = "127.0.0.1:8101"'; do
        grep -qF "$changed" "$config" || { echo "real: no line \`$changed\` could be made of globo.toml" >&2; exit 1; }
    done
    {{ turret }} train --config "$config" --steps 100
    {{ turret }} evaluate --config "$config"
    {{ turret }} publish --config "$config"
    {{ turret }} serve --config "$config" &
    node=$!
    # Until its answer is whole, for a minute at most; else the last refusal or answer is printed.
    for attempt in {1..60}; do
        kill -0 "$node" 2>/dev/null || { echo "real: the node ended before it answered" >&2; exit 1; }
        ask=({{ turret }} retrieve --url http://127.0.0.1:8101 --user 59 --interest 281 -k 5)
        if "${ask[@]}" --json >"$dir/answer" 2>"$dir/refusal" && grep -q '"status": "full"' "$dir/answer"; then
            "${ask[@]}"
            exit 0
        fi
        sleep 1
    done
    cat "$dir/refusal" "$dir/answer" >&2
    exit 1

# How fast training and encoding are beside PyTorch on this machine; makes an environment for it under target/
bench-training:
    python3 -m venv --system-site-packages target/peers
    target/peers/bin/pip install --quiet torch safetensors numpy
    cargo bench --locked --bench training -- --python target/peers/bin/python

# What users cost on sled, that many of them: bytes, look-ups warm and cold, events flushed in groups; into docs/results/hybrid.json
bench-users users="1000000":
    cargo bench --locked --bench users -- {{ users }}

# What an exact scan costs beside scoring every ad and beside faiss's flat index, into docs/results/scan.json; makes an environment
# for faiss under target/
bench-scan:
    python3 -m venv --system-site-packages target/peers
    target/peers/bin/pip install --quiet faiss-cpu numpy
    cargo bench --locked -p turret-index --bench scan -- target/peers/bin/python

# What asking only the nearest shards costs and saves, on the quickstart's ads and on the vectors below TURRET_DATA; into
# docs/results/partitioning.json
bench-partitioning: quickstart
    cargo bench --locked -p turret-index --bench partitioning -- "$PWD/.turret/quickstart/generations/$(cat .turret/quickstart/generations/CURRENT)"

# What a search of a shard costs beside hnswlib, faiss and usearch at equal recall, one query a call: shards of so many ads, of so many
# numbers each; rows of others in docs/results/index.json stay. Makes an environment for the libraries under target/
bench-index sizes="20000,200000" dimensions="64,128": (_marketplace "200000")
    python3 -m venv --system-site-packages target/peers
    target/peers/bin/pip install --quiet numpy hnswlib faiss-cpu usearch
    cargo bench --locked -p turret-index --bench index -- target/peers/bin/python {{ absolute_path("target/marketplace-200000/generation") }} {{ sizes }} {{ dimensions }}

# How that cost grows with the ads of a shard, up to so many, and with the shards that the same ads lie in; into docs/results/index.json too
bench-scaling ads="300000":
    cargo bench --locked -p turret-index --bench index -- scaling {{ ads }}

# The whole job beside Redis, onnxruntime, hnswlib and uvicorn doing the same, with so many ads, into docs/results/whole-job.json; needs
# redis-server, and makes an environment for the rest under target/
bench-whole-job ads="200000": build
    python3 -m venv --system-site-packages target/peers
    target/peers/bin/pip install --quiet numpy hnswlib faiss-cpu onnxruntime onnx redis hiredis uvicorn uvloop httptools orjson
    target/peers/bin/pip install --quiet torch safetensors xxhash pyarrow
    target/peers/bin/python benches/whole_job.py {{ turret }} docs/results/whole-job.json {{ ads }}

# What changes cost an index shard and its searches while all of its ads are replaced; into
# docs/results/churn.json
bench-churn ads="200000":
    cargo bench --locked -p turret-index --bench churn -- {{ ads }}

# What opening a shard costs beside building it, and what writing it costs who changes it; into
# docs/results/snapshot.json
bench-snapshot *ads:
    cargo bench --locked -p turret-index --bench snapshot -- {{ ads }}

# What filters cost and find at every selectivity, beside an exact scan of what passes, of ads that are made up, of a marketplace and of
# the vectors below TURRET_DATA; into docs/results/filters.json. With a number only so many that are made up, and nothing is written
bench-filters *ads: (_marketplace "200000")
    cargo bench --locked -p turret-index --bench filters -- {{ absolute_path("target/marketplace-200000/generation") }} {{ ads }}

# Print the tables of docs/performance.md of what bench-index and bench-filters wrote
tables:
    python3 benches/tables.py docs/results

# The same on a GPU, and whether it computes what the CPU does; the Python given must have PyTorch for CUDA, and safetensors
bench-gpu python="python3" device="cuda:0": build-cuda
    target/cuda/test-model on_a_gpu
    target/cuda/bench-training --python {{ python }} --device {{ device }}

# A node whose worker computes on a GPU beside the same node on the CPU: whether both answer the same, and what it costs; into
# docs/results/gpu-node.json
bench-gpu-node device="cuda:0": quickstart build-cuda
    python3 benches/gpu_node.py target/cuda/release/turret docs/results/gpu-node.json {{ device }}

# Whether Turret computes what PyTorch does: asks PyTorch now, and prints the largest difference; makes an environment for it
# under target/. With `examples/pytorch/parity/golden` the answers that are committed are made anew
parity dir="target/parity/golden": build
    python3 -m venv --system-site-packages target/parity
    target/parity/bin/pip install --quiet torch safetensors numpy xxhash pyarrow
    target/parity/bin/python examples/pytorch/parity/golden.py {{ turret }} {{ dir }}
    TURRET_PARITY={{ dir }} cargo nextest run --locked --test parity --no-capture

# Everything that must hold: the README's own commands, lint, docs, the quickstart, and the real data where it is
ci: setup
    #!/usr/bin/env bash
    set -euo pipefail
    # What a run must not leave: changed files, and processes of this build.
    left() {
        git status --porcelain
        for process in /proc/[0-9]*; do
            case $(readlink "$process/exe" || true) in "$PWD"/target/*) echo "process ${process#/proc/}" ;; esac
        done
    }
    had_turret=$([ -e .turret ] && echo yes || echo no)
    before=$(left)
    times=()
    report() {
        [ "$had_turret" = yes ] || rm -rf .turret
        printf '\nseconds of each step\n'
        printf '%8s  %s\n' "${times[@]}" "$SECONDS" "in all"
    }
    trap report EXIT
    step() {
        local name=$1 start=$SECONDS
        shift
        printf '\n== %s\n' "$name"
        "$@" || { echo "ci: step failed: $name" >&2; exit 1; }
        times+=("$((SECONDS - start))" "$name")
    }
    nothing_left() { diff <(echo "$before") <(left); }
    step "README, setup" just _readme setup
    step "README, test" just _readme test
    step "lint" just lint
    step "docs" just docs
    step "quickstart" just quickstart
    if [ -n "${TURRET_DATA:-}" ]; then
        step "real data" just real
    else
        echo "skipped: TURRET_DATA is not set"
    fi
    step "nothing left behind" nothing_left

# A published marketplace of so many ads below target/, with a model trained for a moment: embeddings for benchmarks
_marketplace ads: build
    #!/usr/bin/env bash
    set -euo pipefail
    dir=$PWD/target/marketplace-{{ ads }}
    [ ! -e "$dir/generation" ] || exit 0
    rm -rf "$dir"
    mkdir -p "$dir"
    sed "s|\.turret/quickstart|$dir|" cluster-config/single.toml >"$dir/node.toml"
    {{ turret }} synth "$dir/marketplace" --ads {{ ads }} --users 20000
    {{ turret }} train --config "$dir/node.toml" --only contextual
    {{ turret }} publish --config "$dir/node.toml"
    ln -s "generations/$(cat "$dir/generations/CURRENT")" "$dir/generation"

# Runs the README's fenced block tagged `sh NAME`, as a stranger would
_readme name:
    #!/usr/bin/env bash
    set -euo pipefail
    block=$(awk -v tag='```sh {{ name }}' '$0 == tag { on = 1; next } on && /^```/ { exit } on' README.md)
    [ -n "$block" ] || { echo 'README.md has no block that begins with ```sh {{ name }}' >&2; exit 1; }
    echo "$block"
    bash -euo pipefail -c "$block"
