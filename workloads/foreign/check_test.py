"""Tests that check.py finds each kind of problem. Run: python3 -m unittest discover -s workloads/foreign -p '*_test.py'"""

import tempfile
import unittest
from pathlib import Path

from check import check

ROWS = ["a\tv0\t10\th=x", "b\tv1\t20\th=x", "a\tv2\t5\th=y", "\\N\tv3\t30\th=x", "\\N\tv4\t30\th=x"]
GOOD = ["0\t0\t10\ta\tv0\th=x", "0\t1\t5\ta\tv2\th=y", "1\t0\t30\t\\N\tv4\th=x", "1\t1\t20\tb\tv1\th=x", "1\t2\t30\t\\N\tv3\th=x"]


class Check(unittest.TestCase):
    def judge(self, records, **options):
        with tempfile.TemporaryDirectory() as scratch:
            rows, out = Path(scratch) / "rows", Path(scratch) / "records"
            rows.write_text("".join(line + "\n" for line in ROWS))
            out.write_text("".join(line + "\n" for line in records))
            return check(rows, out, **options)

    def finds(self, text, records, **options):
        problems = self.judge(records, **options).problems
        self.assertTrue(any(text in p for p in problems), problems)

    def changed(self, at, old, new):
        return [line.replace(old, new) if i == at else line for i, line in enumerate(GOOD)]

    def test_correct_records_pass(self):
        self.assertEqual(self.judge(GOOD).problems, [])
        self.assertEqual(self.judge(GOOD).records, 5)

    def test_digest_does_not_depend_on_the_order_of_partitions(self):
        self.assertEqual(self.judge(GOOD).digest, self.judge(GOOD[2:] + GOOD[:2]).digest)
        self.assertNotEqual(self.judge(GOOD).digest, self.judge(self.changed(0, "\t10\t", "\t11\t")).digest)

    def test_lost(self):
        self.finds("1 rows are missing, the first is row 4", GOOD[:-1])

    def test_twice(self):
        self.finds("row 4 is there again", GOOD + ["1\t3\t30\t\\N\tv3\th=x"])

    def test_key_value_timestamp_header(self):
        self.finds("not a row", self.changed(2, "\\N", ""))
        self.finds("not a row", self.changed(3, "v1", "v2"))
        self.finds("not a row", self.changed(0, "\t10\t", "\t11\t"))
        self.finds("not a row", self.changed(0, "h=x", "h=y"))

    def test_offsets(self):
        self.finds("partition 1 offset 3: expected offset 2", self.changed(4, "1\t2", "1\t3"))
        self.finds("partition 0 offset 1: expected offset 0", GOOD[1:])

    def test_order_of_a_key(self):
        swapped = ["0\t0\t5\ta\tv2\th=y", "0\t1\t10\ta\tv0\th=x"] + GOOD[2:]
        self.finds("key a out of order", swapped)
        self.assertEqual(self.judge(swapped, order="key+headers").problems, [])
        self.finds("key a also stands in partition 0", [GOOD[0]] + GOOD[2:] + ["1\t3\t5\ta\tv2\th=y"])

    def test_timestamps_in_a_range(self):
        self.assertEqual(self.judge(self.changed(0, "\t10\t", "\t11\t"), timestamps=(5, 30)).problems, [])
        self.finds("timestamp 31 is not in (5, 30)", self.changed(0, "\t10\t", "\t31\t"), timestamps=(5, 30))


if __name__ == "__main__":
    unittest.main()
