#!/usr/bin/env python3
"""Judges what a client read back from a topic against the rows that were written to it.

    check.py --rows FILE --records FILE [--order key|key+headers] [--timestamps FROM..TO]

Passes if each row occurs exactly once, with its key, value, timestamp and headers, and no other record does; a key is in one
partition, in the order of the rows (rows without a key have none); in each partition offsets start at 0 and have no gap.
--order key+headers asks for order among equal headers only, --timestamps for times in a range instead of the rows' own: for
clients that can't do better. Prints the first few problems, exit status 1 if there are any. rows.py describes the files.
"""

import argparse
import hashlib
import sys

PROBLEMS_MAX = 5


class Verdict:
    """The result: `problems`, and a `digest` to compare two clients' reads of one topic."""

    def __init__(self):
        self.problems = []
        self.records = 0
        self.digest = ""

    def problem(self, text):
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(text)


def check(rows_path, records_path, order="key", timestamps=None):
    """`timestamps`: None, or the two ends of a range in ms, both included."""
    verdict = Verdict()
    row_at = {}
    with open(rows_path, encoding="utf-8") as rows:
        for i, line in enumerate(rows):
            key, value, at, headers = line.rstrip("\n").split("\t")
            row_at[key, value, at if timestamps is None else "", headers] = i
    seen = bytearray(len(row_at))
    next_offset, last, hashes = {}, {}, {}
    with open(records_path, encoding="utf-8") as records:
        for line in records:
            verdict.records += 1
            field = line.rstrip("\n").split("\t")
            if len(field) != 6:
                verdict.problem(f"not a record: {line!r}")
                continue
            partition, offset, at, key, value, headers = field
            where = f"partition {partition} offset {offset}"
            hashes.setdefault(partition, hashlib.sha256()).update(line.encode())
            if int(offset) != next_offset.get(partition, 0):
                verdict.problem(f"{where}: expected offset {next_offset.get(partition, 0)}")
            next_offset[partition] = int(offset) + 1
            if timestamps is not None:
                if not timestamps[0] <= int(at) <= timestamps[1]:
                    verdict.problem(f"{where}: timestamp {at} is not in {timestamps}")
                at = ""
            row = row_at.get((key, value, at, headers))
            if row is None:
                verdict.problem(f"{where}: not a row: {field[2:]}")
                continue
            if seen[row]:
                verdict.problem(f"{where}: row {row + 1} is there again")
            seen[row] = 1
            if key == "\\N":
                continue
            before = last.get((key, headers if order == "key+headers" else ""), (partition, -1))
            if before[0] != partition:
                verdict.problem(f"{where}: key {key} also stands in partition {before[0]}")
            elif before[1] >= row:
                verdict.problem(f"{where}: key {key} out of order, row {row + 1} after row {before[1] + 1}")
            last[key, headers if order == "key+headers" else ""] = (partition, row)
    lost = len(seen) - sum(seen)
    if lost:
        verdict.problem(f"{lost} rows are missing, the first is row {seen.index(0) + 1}")
    verdict.digest = " ".join(f"{p}:{h.hexdigest()}" for p, h in sorted(hashes.items()))
    return verdict


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", required=True)
    parser.add_argument("--records", required=True)
    parser.add_argument("--order", choices=("key", "key+headers"), default="key")
    parser.add_argument("--timestamps", metavar="FROM..TO", type=lambda s: tuple(int(ms) for ms in s.split("..")))
    args = parser.parse_args()
    verdict = check(args.rows, args.records, args.order, args.timestamps)
    print("\n".join(verdict.problems) or f"{verdict.records} records, as written")
    sys.exit(bool(verdict.problems))


if __name__ == "__main__":
    main()
