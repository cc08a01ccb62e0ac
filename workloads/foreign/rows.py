"""Shared by the Python clients: the command line and the TSV format of rows and records.

A row is `key value timestamp headers`, a record `partition offset timestamp key value headers`, separated by tabs; a null is
\\N; backslash, tab, line feed and carriage return in a text are escaped; headers are `name=value`, separated by `;`.
"""

import argparse

PARTITIONS = 6
TOPIC_CONFIG = {"retention.ms": "-1"}

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def arguments(doc, compression, commands=("produce", "consume")):
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=commands)
    parser.add_argument("--bootstrap", required=True, metavar="HOST:PORT")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--data", metavar="FILE", help="rows to produce")
    parser.add_argument("--out", metavar="FILE", help="where to write the records consumed")
    parser.add_argument("--compression", default=compression)
    return parser.parse_args()


def read(path):
    """Yields (key or None, value, timestamp, [(header, value)]), texts as bytes. Rows hold no escapes."""
    with open(path, "rb") as file:
        for line in file:
            key, value, timestamp, headers = line.rstrip(b"\n").split(b"\t")
            pairs = [header.split(b"=", 1) for header in headers.split(b";")]
            yield None if key == b"\\N" else key, value, int(timestamp), [(n.decode(), v) for n, v in pairs]


def text(data):
    """One field: the bytes as text, escaped; invalid UTF-8 becomes replacement characters, which no row has."""
    return "\\N" if data is None else data.decode(errors="replace").translate(_ESCAPES)


def record(partition, offset, timestamp, key, value, headers):
    pairs = ";".join(f"{name}={text(data)}" for name, data in headers or ())
    return f"{partition}\t{offset}\t{timestamp}\t{text(key)}\t{text(value)}\t{pairs}\n"
