#!/usr/bin/env python3
"""Judges the results of a test suite with expected failures against a list.

    expected.py --results FILE --expected FILE [--classes REGEX]

A result is a line `PASS|FAIL|SKIP CLASS.TEST[#N]<TAB>TIME<TAB>MESSAGE`: #N numbers the runs of one test with several parameters, in
an order that varies, so a test fails here if any of its runs does. The list has a line `CLASS.TEST<TAB>REASON` for each test
that fails, and a line `CLASS<TAB>N` for each class with N runs that pass. Passes if exactly these fail and so many pass: a test that
fails without being in the list, one of the list that passes, and one that didn't run are problems. A test whose REASON begins with
`sometimes` may pass too, and doesn't count in N. --classes: only these classes ran. Prints the problems and the counts, exit status 1
if there are problems.
"""

import argparse
import re
import sys
from collections import Counter


def judge(results, expected, classes=".*"):
    """Takes the lines of both files; returns the problems and the counts."""
    reasons, passes = {}, {}
    for line in expected:
        name, value = line.rstrip("\n").split("\t")
        if not re.fullmatch(classes, class_of(name)):
            continue
        if "." in name:
            reasons[name] = value
        else:
            passes[name] = int(value)

    def sometimes(name):
        return reasons.get(name, "").startswith("sometimes")

    problems, outcomes, runs, skipped = {}, {}, Counter(), Counter()
    passed = dict.fromkeys(passes, 0)
    for line in results:
        outcome, rest = line.rstrip("\n").split(" ", 1)
        run, _, message = rest.split("\t", 2)
        name = run.split("#", 1)[0]
        runs[outcome] += 1
        outcomes.setdefault(name, set()).add(outcome)
        if outcome == "SKIP":
            skipped[message.split(": ", 1)[-1]] += 1
        elif outcome == "PASS" and not sometimes(name):
            passed[class_of(name)] = passed.get(class_of(name), 0) + 1
        elif outcome == "FAIL" and name not in reasons:
            problems[name] = f"fails, and is not in the list: {message}"
    for name, reason in reasons.items():
        outcome = outcomes.get(name, set())
        if "FAIL" not in outcome and not ("PASS" in outcome and sometimes(name)):
            problems[name] = f"{'passes' if 'PASS' in outcome else 'did not run'}, and is in the list: {reason}"
    explained = {class_of(name) for name in problems}
    for name, n in passed.items():
        if n != passes.get(name, 0) and name not in explained:
            problems[name] = f"{n} runs passed, and the list says {passes.get(name, 0)}"

    counts = [f"{runs['PASS']} passed, {runs['FAIL']} failed, {runs['SKIP']} skipped"]
    counts += [f"{n} tests of the list: {reason}" for reason, n in Counter(reasons.values()).most_common()]
    counts += [f"{n} skipped: {why}" for why, n in skipped.most_common()]
    return [f"{name}: {problem}" for name, problem in problems.items()], counts


def class_of(name):
    """The class of `CLASS.TEST`, or of `[class:PACKAGE.CLASS]`, which is a failure of a class outside of its tests."""
    return name.strip("[]").rsplit(".", 1)[-1] if name.startswith("[class:") else name.split(".", 1)[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", required=True, metavar="FILE")
    parser.add_argument("--expected", required=True, metavar="FILE")
    parser.add_argument("--classes", default=".*", metavar="REGEX")
    args = parser.parse_args()
    with open(args.results, encoding="utf-8") as results, open(args.expected, encoding="utf-8") as expected:
        problems, counts = judge(results, expected, args.classes)
    print(*problems, *counts, sep="\n")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
