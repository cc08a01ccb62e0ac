# Sourced by the scripts beside it; sets paths. Everything except kcat (a Debian package) is installed in $cache.
foreign="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cache="${FOREIGN_CACHE:-$(cd "$foreign/../.." && pwd)/target/foreign}"

# Prints the comment at the top of the running script.
usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0"; }
