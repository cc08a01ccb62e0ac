# Sourced by the scripts beside it: where things are. Nothing is installed outside of $cache (kcat, a Debian package, apart).
foreign="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cache="${FOREIGN_CACHE:-$(cd "$foreign/../.." && pwd)/target/foreign}"

# Prints the comment at the top of the script that runs.
usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0"; }
