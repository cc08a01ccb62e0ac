"""The documents name what is there: files, links, bugs of the bank, invariants."""

import re
import subprocess
import unittest
from collections import Counter
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
FILES = subprocess.run(["git", "-C", str(TOP), "ls-files", "-co", "--exclude-standard"], check=True, capture_output=True, text=True)
FILES = {name for name in FILES.stdout.split("\n") if (TOP / name).is_file()}
FOLDERS = {str(parent) for name in FILES for parent in Path(name).parents}
DOCUMENTS = sorted(name for name in FILES if name.endswith(".md"))
MUTANTS = {Path(name).stem for name in FILES if re.fullmatch(r"sim/mutants/[^/]+\.patch", name)}
FIRST = {name.split("/")[0] for name in FILES if "/" in name}


def text(name):
    return (TOP / name).read_text()


def rows(document, head):
    """The cells of each row of the table that begins with this head."""
    lines = text(document).split("\n")
    at = next(i for i, line in enumerate(lines) if line.startswith(head))
    for line in lines[at + 2 :]:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split("|")]


class Prose(unittest.TestCase):
    def test_links_lead_to_files(self):
        for document in DOCUMENTS:
            for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text(document)):
                path = (TOP / document).parent / link
                self.assertTrue(path.exists(), f"{document}: {link}")

    def test_links_lead_to_headings(self):
        for document in DOCUMENTS:
            for link, anchor in re.findall(r"\]\(([^)#:\s]*)#([^)]*)\)", text(document)):
                target = (TOP / document).parent / link if link else TOP / document
                headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
                found = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
                self.assertIn(anchor, found, f"{document}: {link}#{anchor}")

    def test_paths_of_the_tree_are_there(self):
        for document in DOCUMENTS:
            for path in re.findall(r"`([\w.\-]+/[\w.\-/]+)(?::\d+)?`", text(document)):
                if path.split("/")[0] in FIRST and not re.search(r"[A-Z-]+\.(json|patch|rs)$", path):
                    self.assertTrue(path.rstrip("/") in FILES | FOLDERS, f"{document}: {path}")

    def test_each_bug_of_the_bank_has_a_row_and_a_scenario(self):
        self.assertEqual({row[0] for row in rows("sim/README.md", "| mutant | source | found by")}, MUTANTS)
        self.assertEqual(set(re.findall(r"\*([a-z][a-z\-]+)\*", text("sim/SCENARIOS.md").split("\n## ", 1)[1])), MUTANTS)

    def test_each_bug_is_found_by_what_its_head_says(self):
        for row in rows("sim/README.md", "| mutant | source | found by"):
            breaks = re.search(r"^breaks: (.*)$", text(f"sim/mutants/{row[0]}.patch"), re.MULTILINE)[1].split()
            self.assertLessEqual(set(row[2].split()), set(breaks), row[0])

    def test_each_id_has_a_row(self):
        ids = {row[0].strip("`") for head in ("| id | what holds", "| id | what happened") for row in rows("sim/INVARIANTS.md", head)}
        for name in sorted(FILES):
            if name.startswith("sim/src/") and name.endswith(".rs"):
                said = set(re.findall(r'(?:Violation::new|\.violation|\.say)\(\s*"([\w\-]+)"', text(name)))
                self.assertLessEqual(said, ids, name)
            if name.startswith("sim/mutants/"):
                said = re.search(r"^breaks: (.*)$", text(name), re.MULTILINE)[1].split()
                self.assertLessEqual(set(said), ids, name)

    def test_the_bugs_of_each_id_are_counted(self):
        caught = Counter(i for row in rows("sim/README.md", "| mutant | source | found by") for i in row[2].split())
        for row in rows("sim/INVARIANTS.md", "| id | what holds"):
            self.assertEqual(int(row[4] or 0), caught[row[0]], row[0])


if __name__ == "__main__":
    unittest.main()
