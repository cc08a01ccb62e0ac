# shellcheck shell=bash
# The steps of .ci/run and .ci/full. Both source this file at the top of the tree. A step that could not run says so, and fails.
# shellcheck disable=SC2034 # some are used where this is sourced
summary=() failed=0 group='' run_seconds_max=2400
trap end_group EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

end_group() { # ends what a step leaves running
    [ -n "$group" ] || return 0
    kill -TERM -- "-$group" 2>/dev/null
    for _ in $(seq 50); do
        ps -eo pgid=,stat= | awk -v group="$group" '$1 == group && $2 !~ /^Z/ { alive = 1 } END { exit !alive }' || break
        sleep 0.2
    done
    kill -KILL -- "-$group" 2>/dev/null
    group=''
}

step() { # NAME SECONDS COMMAND...: fails if the command does, or if it takes longer
    local name=$1 limit=$2 begun=$SECONDS took rc
    shift 2
    printf '\n=== %s\n' "$name"
    # `timeout` makes a process group, so that nothing outlives the step. The command may be a function of this file.
    # shellcheck disable=SC2016
    timeout --kill-after=15 "$limit" bash -uo pipefail -c 'source .ci/steps.sh; "$@"' step "$@" </dev/null &
    group=$!
    wait "$group"
    rc=$? took=$((SECONDS - begun))
    end_group
    if ((rc && took >= limit)); then
        echo "FAILED: $name takes more than $limit s"
        summary+=("FAILED  $took s  $name: more than $limit s")
        failed=1
    elif ((rc)); then
        summary+=("FAILED  $took s  $name")
        failed=1
    else
        summary+=("ok      $took s  $name")
    fi
}

tools() { # everything that the steps call, before any of them runs: names all that is missing or too old
    local missing=0 name rust
    need() { # NAME WHY
        command -v "$1" >/dev/null && return
        echo "missing: $1, for $2"
        missing=1
    }
    at_least() { # NAME VERSION WANTED
        [ "$(printf '%s\n' "$3" "${2:-0}" | sort -V | head -1)" = "$3" ] && { echo "$1 $2"; return; }
        echo "too old: $1 is ${2:-not known}, needed is $3"
        missing=1
    }
    version() { # COMMAND...: the first version in what it prints
        "$@" 2>&1 | grep -oE '[0-9]+(\.[0-9]+)+' | head -1
    }
    need git "the commits"
    need cargo "everything"
    need rustc "everything"
    need cargo-fmt "fmt (rustup component add rustfmt)"
    need cargo-clippy "clippy (rustup component add clippy)"
    need cc "dependencies in C"
    need make "dependencies in C"
    need python3 "the checks in Python"
    need java "Apache Kafka and its clients (a JDK)"
    need javac "Apache Kafka's clients (a JDK)"
    need mvn "Apache Kafka and its clients (Maven)"
    need go "franz-go and sarama"
    need node "kafkajs"
    need npm "kafkajs"
    for name in awk flock grep ps mktemp realpath sed sha256sum sort tee timeout xargs; do need "$name" "the scripts"; done
    for name in kcat chromium; do
        command -v "$name" >/dev/null && continue
        need apt-get "$name"
        if [ "$(id -u)" != 0 ]; then
            echo "missing: $name (only root can install it)"
            missing=1
        fi
    done
    ((missing)) && return 1
    rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    at_least rustc "$(version rustc --version)" "$rust"
    at_least cargo "$(version cargo --version)" "$rust"
    at_least python3 "$(version python3 --version)" 3.11
    at_least java "$(version java -version)" 17
    at_least javac "$(version javac -version)" 17
    at_least go "$(version go version)" 1.26
    at_least node "$(version node --version)" 20
    python3 -m pip --version >/dev/null || { echo "missing: pip of python3, for the clients in Python"; missing=1; }
    return "$missing"
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
    # shellcheck disable=SC2016 # the words as they are printed
    grep -F 'needs `--cfg madsim`' <<<"$said" || { tail -5 <<<"$said"; return 1; }
}

seeds() { target/release/brokkr-sim run --seeds "0..$1"; }

fresh() { # COUNT: prints A..B, so many seeds that each commit has for itself
    local first
    first=$((16#$(git rev-parse HEAD | cut -c1-12)))
    echo "$first..$((first + $1))"
}
fresh_seeds() { # COUNT
    local range
    range=$(fresh "$1") || return 1
    echo "of this commit: cargo sim run --seeds $range"
    target/release/brokkr-sim run --seeds "$range"
}
fresh_twice() { # COUNT
    local range
    range=$(fresh "$1") || return 1
    echo "of this commit: cargo sim determinism --seeds $range"
    target/release/brokkr-sim determinism --seeds "$range"
}
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

page_in_chromium() { # the HTML pages of a failing run and of one with 100,000 events, opened in headless Chromium
    if ! command -v chromium >/dev/null; then
        echo "installing chromium (half a minute)"
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null || return 1
    fi
    sim/page/check --sim target/release/brokkr-sim --out target/page-check
}

mutants_apply() {
    local p
    for p in sim/mutants/*.patch; do git apply --check "$p" || return 1; done
}

base() { # the commit that this one is compared with: CI_BASE, or where it left the main branch, or the one before
    local base
    if [ -n "${CI_BASE:-}" ]; then
        git rev-parse -q --verify "$CI_BASE^{commit}"
        return
    fi
    for branch in origin/HEAD origin/main; do
        base=$(git merge-base HEAD "$branch" 2>/dev/null) && [ "$base" != "$(git rev-parse HEAD)" ] && { echo "$base"; return; }
    done
    git rev-parse -q --verify HEAD~1 || git rev-parse HEAD
}

bugs_are_found() { # SECONDS: those that the changes since the base concern and three in rotation: one, then as many as begin within the time
    local base chosen=() left=() begun=$SECONDS lost=0 i
    base=$(base) || { echo "no base ${CI_BASE:-}"; return 1; }
    .ci/mutants.py "$base" || return 1
    mapfile -t chosen < <(.ci/mutants.py --names "$base")
    for ((i = 0; i < ${#chosen[@]}; i++)); do
        if ((i >= 1 && SECONDS - begun >= $1)); then
            left=("${chosen[@]:i}")
            break
        fi
        target/release/brokkr-sim bugs "${chosen[i]}" --starts 3 || lost=1
    done
    echo "hunted: ${chosen[*]:0:i}"
    ((${#left[@]} == 0)) || echo "left for .ci/full, after $((SECONDS - begun)) s: ${left[*]}"
    return "$lost"
}

real_clients() { # quick|full
    local round=$1 dir=target/ci-brokers brokkr kafka
    rm -rf "$dir" && mkdir -p "$dir"
    workloads/foreign/install >"$dir/install.log" 2>&1 || { tail -20 "$dir/install.log"; return 1; }
    target/release/brokkr --set metrics.listen=none --data-dir "$dir/brokkr" --listen 127.0.0.1:0 >"$dir/brokkr.out" 2>"$dir/brokkr.log" &
    local pid=$!
    brokkr=$(wait_ready "$dir/brokkr.out") || return 1
    workloads/foreign/run --bootstrap "$brokkr" --round "$round" || return 1
    workloads/foreign/bad-input.py --bootstrap "$brokkr" --pid "$pid" --rss-max-mib 600 --log "$dir/brokkr.log" || return 1
    kill "$pid"; wait "$pid" || { echo "the broker did not stop cleanly"; return 1; }
    workloads/foreign/tools/dump "$dir/brokkr" >"$dir/dump.out" 2>&1 || { tail -20 "$dir/dump.out"; return 1; }
    # Kafka's tools compare two brokers that are new.
    target/release/brokkr --config workloads/foreign/kafka/one-node.properties --set metrics.listen=none --data-dir "$dir/tools" --listen 127.0.0.1:0 >"$dir/tools.out" 2>"$dir/tools.log" &
    workloads/foreign/kafka/run-kafka.sh --dir "$dir/kafka" --port 19192 >"$dir/kafka.out" 2>&1 &
    brokkr=$(wait_ready "$dir/tools.out") && kafka=$(wait_ready "$dir/kafka.out") || return 1
    workloads/foreign/tools/run --bootstrap "$brokkr" --reference "$kafka"
}

kafka_directory() { workloads/foreign/kafka-directory/run --brokkr target/release/brokkr; }

hostile() { # 200 hostile connections for a minute, and one client beside them: bounds the broker's memory and that client's latency
    local dir=target/hostile at pid
    rm -rf "$dir" && mkdir -p "$dir"
    target/release/brokkr --set queued.max.request.bytes=134217728 --set metrics.listen=none --data-dir "$dir/data" --listen 127.0.0.1:0 >"$dir/out" 2>"$dir/log" &
    pid=$!
    at=$(wait_ready "$dir/out") || return 1
    target/release/brokkr-bench hostile --target "$at" --pid "$pid" --connections 200 --secs 60 --rate 1000 || return 1
    kill "$pid"; wait "$pid" || { echo "the broker did not stop cleanly"; return 1; }
}

deny() { # licences, sources and bans of the dependencies; advisories need a database from outside
    local version=0.20.2 root=target/tools
    if [ "$("$root/bin/cargo-deny" --version 2>/dev/null)" != "cargo-deny $version" ]; then
        echo "installing cargo-deny $version to $root (two minutes)"
        cargo install --quiet --locked --debug --root "$root" "cargo-deny@$version" || return 1
    fi
    "$root/bin/cargo-deny" --locked --workspace --config .cargo/deny.toml check bans licenses sources
}

docs() { RUSTDOCFLAGS="--cfg madsim -D warnings" cargo doc -q --workspace --no-deps; }
keys() { broker/keys --check; }
no_circles() { .ci/circles.py; }

checkers() { # the tests of the checks themselves
    python3 -m unittest discover -s .ci -p '*_test.py' && python3 -m unittest discover -s workloads/foreign -p '*_test.py'
}

dist() { # the profile that ships builds, and what it builds starts and stops
    local dir=target/ci-dist pid
    rm -rf "$dir" && mkdir -p "$dir"
    cargo build -q --profile dist -p brokkr || return 1
    target/dist/brokkr --data-dir "$dir/data" --listen 127.0.0.1:0 >"$dir/out" 2>"$dir/log" &
    pid=$!
    wait_ready "$dir/out" || return 1
    kill "$pid"
    wait "$pid" || { echo "the broker did not stop cleanly"; return 1; }
    ls -l target/dist/brokkr
}

beside_kafka() { benches/run --no-build -- --rounds 2; } # both brokers, all works: fails where a record is lost, twice or another

lint_test_build() { # everything before the release build
    step "fmt" 60 cargo fmt --all --check
    step "the keys in OPERATIONS.md" 60 keys
    step "checks of the checks" 120 checkers
    step "no circles of imports" 60 no_circles
    step "clippy" 900 cargo clippy -q --workspace --all-targets -- -D warnings
    step "docs" 600 docs
    step "tests (the README's command)" 1800 cargo test --workspace
}

other_trees() { # checks that build a tree of their own
    step "licences, sources, bans (cargo-deny)" 600 deny
    step "env's snapshots under loom" 600 env RUSTFLAGS="--cfg brokkr_loom --cfg madsim" cargo test -q -p brokkr-env --lib --target-dir target/loom loom
    step "the broker builds without the simulator's flag" 600 without_flag
}

release() { step "release build" 1200 cargo build -q --release -p brokkr -p brokkr-sim -p brokkr-bench; }

# The run ends here if a tool is missing: no step can mend that.
tools_or_end() {
    step "tools" 60 tools
    ((failed == 0)) || { summarize; exit 1; }
}

summarize() {
    printf '\n=== summary (%s s)\n' "$SECONDS"
    printf '%s\n' "${summary[@]}"
}
