#!/usr/bin/env bash
# Runs Apache Kafka 4.3.0, one node that is broker and controller, on loopback, installing it first if need be.
#
#   run-kafka.sh --dir DIR [--port PORT] [--set KEY=VALUE]... [--static-voters]
#
# Prints `ready HOST:PORT` once it serves; without a port it picks one. DIR keeps the data (DIR/data), the configuration and
# Kafka's own log (kafka.log); a second start on it goes on where the first ended. The process becomes Kafka itself: stop it
# cleanly by SIGTERM, measure or kill it by its id. KAFKA_HEAP_OPTS is heeded as in Kafka's scripts (1 GiB by default). With
# --static-voters the quorum is that of controller.quorum.voters.
set -euo pipefail
source "$(dirname "$0")/../env.sh"

dir='' port='' settings=() static=''
while (($#)); do
    case "$1" in
        --dir) dir="$2"; shift 2 ;;
        --port) port="$2"; shift 2 ;;
        --set) settings+=("$2"); shift 2 ;;
        --static-voters) static=yes; shift ;;
        --help) usage; exit ;;
        *) echo "run-kafka.sh: unknown argument $1" >&2; exit 2 ;;
    esac
done
[[ -n "$dir" ]] || { usage >&2; exit 2; }

"$foreign/install" kafka >&2
mkdir -p "$dir" && dir="$(cd "$dir" && pwd)"
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
[[ -n "$port" && "$port" != 0 ]] || port="$(free_port)"
# The quorum remembers the controller's address, so a restart keeps it.
[[ -f "$dir/controller.port" ]] || free_port > "$dir/controller.port"
controller_port="$(cat "$dir/controller.port")"
quorum="controller.quorum.bootstrap.servers=127.0.0.1:$controller_port" standalone=--standalone
if [[ -n "$static" ]]; then quorum="controller.quorum.voters=1@127.0.0.1:$controller_port" standalone=''; fi

# The last setting of a key wins in a properties file.
cat > "$dir/server.properties" <<END
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller_port
$quorum
controller.listener.names=CONTROLLER
log.dirs=$dir/data
$(cat "$foreign/kafka/one-node.properties")
$(printf '%s\n' "${settings[@]}")
END

java=(java -cp "$cache/kafka/lib/*" -Dorg.slf4j.simpleLogger.showDateTime=true)
if [[ ! -f "$dir/data/meta.properties" ]]; then
    cluster_id="A$(python3 -c "import base64, uuid; print(base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22])")"
    # shellcheck disable=SC2086
    "${java[@]}" kafka.tools.StorageTool format $standalone -t "$cluster_id" -c "$dir/server.properties" \
        > "$dir/format.log" 2>&1 || { cat "$dir/format.log" >&2; exit 1; }
fi

# Says `ready` from beside, because this process becomes Kafka.
: > "$dir/kafka.log"
tail --pid=$$ -n +1 -f "$dir/kafka.log" | while read -r line; do
    if [[ "$line" == *'Kafka Server started'* ]]; then echo "ready 127.0.0.1:$port"; break; fi
done &
# shellcheck disable=SC2086
exec "${java[@]}" -server ${KAFKA_HEAP_OPTS:--Xms1G -Xmx1G} -XX:+UseG1GC -XX:MaxGCPauseMillis=20 \
    -XX:InitiatingHeapOccupancyPercent=35 -XX:+ExplicitGCInvokesConcurrent -Djava.awt.headless=true \
    kafka.Kafka "$dir/server.properties" >> "$dir/kafka.log" 2>&1
