"""Turns what `kcat -J` prints into the lines that every consumer here writes."""

import json
import sys

import rows

for line in sys.stdin:
    r = json.loads(line)
    key, value = (None if r[name] is None else r[name].encode() for name in ("key", "payload"))
    headers = r.get("headers", [])
    pairs = [(n, None if v is None else v.encode()) for n, v in zip(headers[::2], headers[1::2])]
    sys.stdout.write(rows.record(r["partition"], r["offset"], r["ts"], key, value, pairs))
