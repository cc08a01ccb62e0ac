#!/usr/bin/env python3
"""Which bugs of the bank the changes since a commit concern.

  .ci/mutants.py BASE            prints them in the order in which they are hunted, each with the reason
  .ci/mutants.py --names BASE    the names alone

First those that change a file that changed (or whose patch did), then those in a crate that changed, then three others. The second and the
third begin elsewhere after each commit, so that all have their turn where there is time for a few.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
OTHERS = 3


def git(*arguments):
    return subprocess.run(["git", "-C", str(TOP), *arguments], check=True, capture_output=True, text=True).stdout.split()


def crate_of(path, members):
    """The crate whose code a file is; None if it is no code, or a patch of the bank."""
    for member in members:
        if path.startswith((f"{member}/src/", f"{member}/build", f"{member}/schema/", f"{member}/Cargo.toml")):
            return member
    return None


def turned(names, turn):
    at = turn % len(names) if names else 0
    return names[at:] + names[:at]


def chosen(patches, changed, members, turn):
    """(name, reason) of each; `patches` has the files of each by name."""
    crates = {crate_of(path, members) for path in changed} - {None}
    by_file, by_crate, others = [], [], []
    for name, files in sorted(patches.items()):
        if changed & (files | {f"sim/mutants/{name}.patch"}):
            by_file.append(name)
        elif crates & {crate_of(path, members) for path in files}:
            by_crate.append(name)
        else:
            others.append(name)
    found = [(name, "its file changed") for name in by_file]
    found += [(name, "its crate changed") for name in turned(by_crate, turn * OTHERS)]
    return found + [(name, "its turn") for name in turned(others, turn * OTHERS)[:OTHERS]]


def main(arguments):
    names = arguments[:1] == ["--names"]
    if len(arguments) != 1 + names:
        print(__doc__.strip())
        return 2
    base = arguments[-1]
    members = tomllib.loads((TOP / "Cargo.toml").read_text())["workspace"]["members"]
    patches = {
        path.stem: set(re.findall(r"^\+\+\+ b/(\S+)", path.read_text(), re.MULTILINE)) for path in (TOP / "sim/mutants").glob("*.patch")
    }
    changed = set(git("diff", "--name-only", base))
    found = chosen(patches, changed, members, int(git("rev-list", "--count", "HEAD")[0]))
    if not names:
        print(f"since {git('rev-parse', '--short', base)[0]}: {len(changed)} files changed, {len(found)} of {len(patches)} bugs:")
    for name, reason in found:
        print(name if names else f"  {name} ({reason})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
