# The steps of .ci/run and .ci/full. Both source this file at the top of the tree. A step that could not run says so, and fails.
summary=() failed=0 children=()
trap 'for p in "${children[@]}"; do kill "$p" 2>/dev/null; done' EXIT

step() { # NAME COMMAND...
    local name=$1 begun=$SECONDS
    shift
    printf '\n=== %s\n' "$name"
    if "$@"; then
        summary+=("ok      $((SECONDS - begun)) s  $name")
    else
        summary+=("FAILED  $((SECONDS - begun)) s  $name")
        failed=1
    fi
}

wait_ready() { # FILE: prints HOST:PORT once the line is there
    for _ in $(seq 300); do
        local at
        at=$(sed -n 's/.*ready \([0-9.]*:[0-9]*\).*/\1/p' "$1" | head -1)
        [ -n "$at" ] && { echo "$at"; return 0; }
        sleep 0.2
    done
    echo "not ready: $(tail -3 "$1")" >&2
    return 1
}

one_tree() { # what the broker was built with serves the simulator too: after the one the other compiles no dependency again
    cargo build -q -p brokkr && cargo build -q -p brokkr-sim || return 1
    local package
    for package in brokkr brokkr-sim; do
        cargo build -q -p "$package" --message-format=json >"target/one-tree.$package.json" || return 1
    done
    # Cargo keeps what differs (in features) side by side, so the second build's files are looked for among the first's.
    python3 - target/one-tree.brokkr.json target/one-tree.brokkr-sim.json <<'END'
import json, sys

def files(path):
    units = {}
    for m in map(json.loads, open(path)):
        if m["reason"] == "compiler-artifact" and not m["package_id"].startswith("path+"):
            unit = m["package_id"].split("#")[-1], m["target"]["name"], m["profile"]["opt_level"]
            units.setdefault(unit, set()).update(m["filenames"])
    return units

broker, simulator = map(files, sys.argv[1:])
again = [unit for unit in broker if not simulator.get(unit, set()) <= broker[unit]]
for unit in again:
    print("compiled for the broker, and again for the simulator:", *unit)
if not broker or again:
    sys.exit("the features that brokkr-sim adds to a dependency belong into broker/server/Cargo.toml too")
END
}

without_flag() { # the broker builds; the simulator says what it needs
    RUSTFLAGS="" cargo check -q -p brokkr --target-dir target/without-flag || return 1
    local said
    said=$(RUSTFLAGS="" cargo check -q -p brokkr-sim --target-dir target/without-flag 2>&1) && { echo "the simulator was built"; return 1; }
    grep -F 'needs `--cfg madsim`' <<<"$said" || { tail -5 <<<"$said"; return 1; }
}

seeds() { target/release/brokkr-sim run --seeds "0..$1"; }
requests() { target/release/brokkr-sim requests --seeds "0..$1" --requests 1000; } # every API and version, or it fails
twice() { target/release/brokkr-sim determinism --seeds "0..$1"; }

panic_is_told() { # in release, where nothing unwinds, by the same report as in the tests
    local dir=target/panics told
    mkdir -p "$dir"
    target/release/brokkr-sim plan --seed 1 --secs 5 |
        python3 -c 'import json, sys; p = json.load(sys.stdin); p["workload"]["producers"][0]["partitions"] = []; json.dump(p, sys.stdout)' >"$dir/plan.json"
    told=$(cd "$dir" && ../release/brokkr-sim run --plan plan.json --format json --trace trace.jsonl 2>panic.log)
    [ $? = 1 ] && grep -qF 'task \"producer\" of node' <<<"$told" && grep -qF '"e":"panic"' "$dir/trace.jsonl" && return 0
    printf '%s\n' "$told" && tail -5 "$dir/panic.log"
    return 1
}

mutants_apply() {
    local p
    for p in sim/mutants/*.patch; do git apply --check "$p" || return 1; done
}

bugs_are_found() { # those of the crates that the last commit changed and three in rotation
    local base
    base=$(git rev-parse -q --verify HEAD~1) || base=HEAD
    target/release/brokkr-sim bugs --changed-since "${CI_BASE:-$base}" --rotate 3 --starts 3
}

real_clients() { # quick|full
    local round=$1 dir=target/ci-brokers brokkr kafka
    rm -rf "$dir" && mkdir -p "$dir"
    workloads/foreign/install >"$dir/install.log" 2>&1 || { tail -20 "$dir/install.log"; return 1; }
    target/release/brokkr --set metrics.listen=none --data-dir "$dir/brokkr" --listen 127.0.0.1:0 >"$dir/brokkr.out" 2>"$dir/brokkr.log" &
    local pid=$!
    children+=("$pid")
    brokkr=$(wait_ready "$dir/brokkr.out") || return 1
    workloads/foreign/run --bootstrap "$brokkr" --round "$round" || return 1
    workloads/foreign/bad-input.py --bootstrap "$brokkr" --pid "$pid" --rss-max-mib 600 --log "$dir/brokkr.log" || return 1
    kill "$pid"; wait "$pid" || { echo "the broker did not stop cleanly"; return 1; }
    workloads/foreign/tools/dump "$dir/brokkr" >"$dir/dump.out" 2>&1 || { tail -20 "$dir/dump.out"; return 1; }
    # Kafka's tools compare two brokers that are new.
    target/release/brokkr --config workloads/foreign/kafka/one-node.properties --set metrics.listen=none --data-dir "$dir/tools" --listen 127.0.0.1:0 >"$dir/tools.out" 2>"$dir/tools.log" &
    children+=("$!")
    workloads/foreign/kafka/run-kafka.sh --dir "$dir/kafka" --port 19192 >"$dir/kafka.out" 2>&1 &
    children+=("$!")
    brokkr=$(wait_ready "$dir/tools.out") && kafka=$(wait_ready "$dir/kafka.out") || return 1
    workloads/foreign/tools/run --bootstrap "$brokkr" --reference "$kafka"
}

kafka_directory() { workloads/foreign/kafka-directory/run --brokkr target/release/brokkr; }

hostile() { # 200 hostile connections for a minute, and one client beside them: bounds the broker's memory and that client's latency
    local dir=target/hostile at pid
    rm -rf "$dir" && mkdir -p "$dir"
    target/release/brokkr --set queued.max.request.bytes=134217728 --set metrics.listen=none --data-dir "$dir/data" --listen 127.0.0.1:0 >"$dir/out" 2>"$dir/log" &
    pid=$!
    children+=("$pid")
    at=$(wait_ready "$dir/out") || return 1
    target/release/brokkr-bench hostile --target "$at" --pid "$pid" --connections 200 --secs 60 --rate 1000 || return 1
    kill "$pid"; wait "$pid" || { echo "the broker did not stop cleanly"; return 1; }
}

lint_test_build() { # everything before the release build
    step "fmt" cargo fmt --all --check
    step "clippy" cargo clippy -q --workspace --all-targets -- -D warnings
    step "tests (the README's command)" cargo test --workspace
    step "env's snapshots under loom" env RUSTFLAGS="--cfg brokkr_loom --cfg madsim" cargo test -q -p brokkr-env --lib --target-dir target/loom loom
    step "one build tree for both worlds" one_tree
    step "the broker builds without the simulator's flag" without_flag
}

release() { step "release build" cargo build -q --release -p brokkr -p brokkr-sim -p brokkr-bench; }

summarize() {
    printf '\n=== summary (%s s)\n' "$SECONDS"
    printf '%s\n' "${summary[@]}"
}
