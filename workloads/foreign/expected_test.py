"""Tests that expected.py finds each kind of difference. Run: python3 -m unittest discover -s workloads/foreign -p '*_test.py'"""

import unittest

from expected import judge

EXPECTED = ["Groups.join\tgroups\n", "Groups.leave\tgroups\n", "Groups\t2\n", "Topics\t2\n"]
RESULTS = [
    "PASS Groups.help\t1 ms\t\n",
    "FAIL Groups.join#1\t1 ms\tAssertionError: no coordinator\n",
    "PASS Groups.join#2\t1 ms\t\n",
    "FAIL Groups.leave#1\t1 ms\tAssertionError: no coordinator\n",
    "PASS Topics.create#1\t1 ms\t\n",
    "PASS Topics.delete#1\t1 ms\t\n",
    "SKIP Topics.replicas#1\t1 ms\torg.opentest4j.TestAbortedException: needs 3 brokers\n",
]


class Expected(unittest.TestCase):
    def finds(self, expected, results, **options):
        problems, _ = judge(results, EXPECTED, **options)
        self.assertEqual(problems, expected)

    def replaced(self, at, *lines):
        return [*RESULTS[:at], *lines, *RESULTS[at + 1:]]

    def test_as_expected(self):
        problems, counts = judge(RESULTS, EXPECTED)
        self.assertEqual(problems, [])
        self.assertEqual(counts, ["4 passed, 2 failed, 1 skipped", "2 tests of the list: groups", "1 skipped: needs 3 brokers"])

    def test_runs_of_a_test_in_another_order(self):
        self.finds([], [line.replace("#1", "#3") for line in reversed(RESULTS)])

    def test_fails_outside_of_the_list(self):
        results = self.replaced(4, "FAIL Topics.create#1\t1 ms\tX: gone\n")
        self.finds(["Topics.create: fails, and is not in the list: X: gone"], results)

    def test_a_class_that_fails_outside_of_its_tests(self):
        results = [*RESULTS, "FAIL [class:kafka.Topics]\t1 ms\tX: no start\n"]
        self.finds(["[class:kafka.Topics]: fails, and is not in the list: X: no start"], results)
        self.assertEqual(judge(results, [*EXPECTED, "[class:kafka.Topics]\tthreads\n"], "T.*|G.*")[0], [])

    def test_passes_and_is_listed(self):
        self.finds(["Groups.leave: passes, and is in the list: groups"], self.replaced(3, "PASS Groups.leave#1\t1 ms\t\n"))

    def test_fails_sometimes(self):
        expected = [line.replace("leave\t", "leave\tsometimes: ") for line in EXPECTED]
        for outcome in ("PASS", "FAIL"):
            results = self.replaced(3, f"{outcome} Groups.leave#1\t1 ms\t\n")
            self.assertEqual(judge(results, expected)[0], [])
        self.assertEqual(judge(self.replaced(3), expected)[0], ["Groups.leave: did not run, and is in the list: sometimes: groups"])

    def test_one_more_run_passes(self):
        results = self.replaced(3, RESULTS[3], "PASS Groups.leave#2\t1 ms\t\n")
        self.finds(["Groups: 3 runs passed, and the list says 2"], results)

    def test_listed_and_not_run(self):
        problem = "Groups.leave: did not run, and is in the list: groups"
        self.finds([problem], self.replaced(3))
        self.finds([problem], self.replaced(3, "SKIP Groups.leave#1\t1 ms\tX: needs 3 brokers\n"))

    def test_passed_before_and_not_run(self):
        problem = "Topics: 1 runs passed, and the list says 2"
        self.finds([problem], self.replaced(5))
        self.finds([problem], self.replaced(5, "SKIP Topics.delete#1\t1 ms\tX: needs 3 brokers\n"))
        self.finds(["Topics: 0 runs passed, and the list says 2"], RESULTS[:4])

    def test_a_class_that_is_not_listed(self):
        self.finds(["Quotas: 1 runs passed, and the list says 0"], [*RESULTS, "PASS Quotas.set#1\t1 ms\t\n"])

    def test_some_classes(self):
        self.finds([], RESULTS[4:], classes="T.*")
        self.finds(["Topics: 1 runs passed, and the list says 2"], RESULTS[5:], classes="T.*")


if __name__ == "__main__":
    unittest.main()
