"""Tests of mutants.py."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import mutants

MEMBERS = ["broker/log", "broker/logs", "sim"]
PATCHES = {name: {f"broker/log/src/{name}.rs"} for name in "abcde"} | {"z": {"broker/logs/src/z.rs"}}


class Mutants(unittest.TestCase):
    def names(self, changed, turn=0):
        return [name for name, _ in mutants.chosen(PATCHES, set(changed), MEMBERS, turn)]

    def test_those_of_a_file_come_first_and_those_of_its_crate_next(self):
        self.assertEqual(self.names(["broker/log/src/c.rs"]), ["c", "a", "b", "d", "e", "z"])
        self.assertEqual(self.names(["broker/log/src/c.rs"], 1), ["c", "e", "a", "b", "d", "z"])

    def test_a_patch_concerns_itself_alone(self):
        self.assertEqual(self.names(["sim/mutants/z.patch"]), ["z", "a", "b", "c"])

    def test_prose_and_other_crates_concern_none(self):
        self.assertEqual(self.names(["README.md", "broker/log/README.md", "sim/src/lib.rs"]), ["a", "b", "c"])

    def test_others_take_turns(self):
        self.assertEqual([self.names([], turn) for turn in (1, 2)], [["d", "e", "z"], ["a", "b", "c"]])

    def test_every_patch_of_the_bank_changes_code_of_a_crate(self):
        members = mutants.tomllib.loads((mutants.TOP / "Cargo.toml").read_text())["workspace"]["members"]
        for path in (mutants.TOP / "sim/mutants").glob("*.patch"):
            files = mutants.re.findall(r"^\+\+\+ b/(\S+)", path.read_text(), mutants.re.MULTILINE)
            self.assertTrue(files and all(mutants.crate_of(f, members) for f in files), path.name)


if __name__ == "__main__":
    unittest.main()
