#!/usr/bin/env python3
"""Finds circles of imports among the files of each crate of the workspace.

  .ci/circles.py [--verbose] [CRATE...]    all crates without a name; a name is a package's, or its directory

Reads `src` of each crate: `use` declarations and paths in the code that begin with `crate`, `self`, `super`, a module, or the crate's own
name. Each name counts as an import of the file that defines it: re-exports (`pub use`) are followed. Prints the circles of each crate,
each as a short one with the file, line and names of each import; with --verbose every import between the files of a circle. Exit status
1 if there is a circle.

Left out: what `#[cfg(test)]` guards; `mod x;` and `pub use` by which a module declares what its own submodules have, unless its file uses
the name itself. Allowed (--verbose names them): a circle inside the folder of one module that is gone if the files with `impl` blocks of
one type count as one file. A method call names no file, so it is no import.
"""

import re
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
TOKEN = re.compile(r"r#\w+|\$crate|\w+|::|[^\s\w]")
OPEN, CLOSE = {"(": ")", "[": "]", "{": "}"}, {")", "]", "}"}
DEFINES = {"struct", "enum", "union", "trait", "fn", "const", "static", "type"}
QUALIFIES = {"fn", "unsafe", "async", "extern", "mut"}
NAME = re.compile(r"[A-Za-z_]\w*$")
KEYWORDS = set(
    "as async await break const continue dyn else enum extern false fn for if impl in let loop match mod move mut pub ref return static "
    "struct trait true type unsafe use where while".split()
)


def blanked(text):
    """The text with comments, strings and characters replaced by spaces: lines stay where they are."""
    pattern = re.compile(
        r"""//[^\n]*|/\*|\b[bc]?r(\#*)"|\b[bc]?"(?:[^"\\]|\\.)*"|b?'(?:[^'\\\n]|\\(?:x..|u\{[^}]*\}|.))'|"(?:[^"\\]|\\.)*\"""", re.S
    )
    out, at = [], 0
    while match := pattern.search(text, at):
        end = match.end()
        if match[0] == "/*":
            depth = 1
            while depth and (mark := re.compile(r"/\*|\*/").search(text, end)):
                depth += 1 if mark[0] == "/*" else -1
                end = mark.end()
        elif match[1] is not None:
            end = text.find('"' + match[1], end)
            end = len(text) if end < 0 else end + 1 + len(match[1])
        out += [text[at : match.start()], re.sub(r"[^\n]", " ", text[match.start() : end])]
        at = end
    return "".join(out) + text[at:]


class Token(str):
    line = 0


def tokens(text):
    found, line, at = [], 1, 0
    for match in TOKEN.finditer(text):
        line += text.count("\n", at, match.start())
        at = match.start()
        token = Token(match[0].removeprefix("r#"))
        token.line = line
        found.append(token)
    return found


def closing(toks, i):
    """The index of the bracket that closes the one at `i`."""
    depth = 0
    for j in range(i, len(toks)):
        if toks[j] in OPEN:
            depth += 1
        elif toks[j] in CLOSE:
            depth -= 1
            if not depth:
                return j
    return len(toks) - 1


def is_test(attribute):
    """Whether an attribute, `cfg ( … )`, can hold in tests only."""
    if attribute[:1] != ["cfg"] or "test" not in attribute:
        return False
    before = attribute[: attribute.index("test")]
    return "not" not in before and "any" not in before


def without_tests(toks):
    """The tokens without the items that `#[cfg(test)]` guards."""
    kept, i = [], 0
    while i < len(toks):
        if toks[i] == "#" and toks[i + 1 : i + 2] == ["["]:
            end = closing(toks, i + 1)
            if not is_test(toks[i + 2 : end]):
                kept += toks[i : end + 1]
                i = end + 1
                continue
            i = end + 1
            while toks[i : i + 2] == ["#", "["]:
                i = closing(toks, i + 1) + 1
            while i < len(toks) and toks[i] not in (";", "{", ","):
                if toks[i] in CLOSE:  # the guarded thing was the last of a list
                    i -= 1
                    break
                i = closing(toks, i) + 1 if toks[i] in OPEN else i + 1
            if toks[i : i + 1] == ["{"]:
                i = closing(toks, i)
            i += 1
        else:
            kept.append(toks[i])
            i += 1
    return kept


class Module:
    def __init__(self, crate, path, file, parent):
        self.crate, self.path, self.file, self.parent = crate, path, file, parent
        self.children, self.defined, self.uses, self.globs, self.spots, self.impls = {}, {}, {}, [], [], []

    def root(self):
        return self.parent.root() if self.parent else self

    def inside(self, other):
        return self is other or (self.parent is not None and self.parent.inside(other))


class Use:
    """One name that a `use` brings in."""

    def __init__(self, path, name, line, public):
        self.path, self.name, self.line, self.public = path, name, line, public


def use_tree(toks, prefix):
    """Every (path, name, line) of the tree of a `use`; the name of a glob is `*`, that of `as _` is None."""
    parts, i = list(prefix), 0
    while i < len(toks):
        token = toks[i]
        if token == "{":
            end, begin, depth = closing(toks, i), i + 1, 0
            for j in range(i + 1, end + 1):
                if toks[j] in OPEN:
                    depth += 1
                elif toks[j] in CLOSE and j != end:
                    depth -= 1
                if j == end or (toks[j] == "," and depth == 0):
                    if begin < j:
                        yield from use_tree(toks[begin:j], parts)
                    begin = j + 1
            return
        if token == "as":
            yield parts, (None if toks[i + 1] == "_" else str(toks[i + 1])), token.line
            return
        if token == "*":
            yield parts, "*", token.line
            return
        if token != "::":
            parts = [*parts, token]
        i += 1
    if parts and parts[-1] == "self" and len(parts) > 1:
        parts = parts[:-1]
    if parts:
        yield parts, str(parts[-1]), parts[-1].line


class Crate:
    def __init__(self, directory):
        self.directory = directory
        manifest = tomllib.loads((directory / "Cargo.toml").read_text())
        self.name = manifest["package"]["name"]
        self.lib_name = manifest.get("lib", {}).get("name", self.name).replace("-", "_")
        self.modules, self.edges, self.lib = [], defaultdict(list), None
        src = directory / "src"
        mains = [src / "main.rs", *sorted((src / "bin").glob("*.rs"))]
        for root in [src / "lib.rs", *mains]:
            if root.exists():
                module = self.module((), root, None)
                if root.name == "lib.rs":
                    self.lib = module
        for module in self.modules:
            self.imports(module)

    # Reading

    def module(self, path, file, parent):
        module = Module(self, path, file, parent)
        self.modules.append(module)
        own_folder = file.name in ("mod.rs", "lib.rs", "main.rs") or (parent is None)
        folder = file.parent if own_folder else file.parent / file.stem
        self.items(module, without_tests(tokens(blanked(file.read_text()))), folder)
        return module

    def items(self, module, toks, folder):
        i, depth, public = 0, 0, False
        while i < len(toks):
            token = toks[i]
            following = toks[i + 1] if i + 1 < len(toks) else ""
            before = toks[i - 1] if i else ""
            if token == "mod" and NAME.match(following) and before not in ("::", "."):
                name = str(following)
                if toks[i + 2] == "{":
                    end = closing(toks, i + 2)
                    child = Module(self, (*module.path, name), module.file, module)
                    self.modules.append(child)
                    self.items(child, toks[i + 3 : end], folder / name)
                    module.children[name] = child
                    i = end + 1
                    continue
                for file in (folder / f"{name}.rs", folder / name / "mod.rs"):
                    if file.exists():
                        module.children[name] = self.module((*module.path, name), file, module)
                i += 3
                continue
            if token == "use" and before not in ("::", ".", "<", "+"):
                end = i
                while toks[end] != ";":
                    end += 1
                public = before == "pub" or (before == ")" and self.visibility(toks, i))
                for parts, name, line in use_tree(toks[i + 1 : end], []):
                    use = Use([str(p) for p in parts], name, line, public)
                    if name == "*":
                        module.globs.append(use)
                    else:
                        module.uses.setdefault(name, []).append(use)
                i = end + 1
                continue
            if depth == 0 and token == "impl":
                module.impls += self.implemented(toks, i)
            if depth == 0 and token in DEFINES and NAME.match(following) and following not in QUALIFIES and before not in ("*", "<"):
                module.defined[str(following)] = module
            if token == "macro_rules" and following == "!":
                module.defined[str(toks[i + 2])] = module
                if "macro_export" in toks[max(0, i - 6) : i]:
                    module.root().defined.setdefault(str(toks[i + 2]), module)
            if token in OPEN:
                depth += 1
            elif token in CLOSE:
                depth -= 1
            if NAME.match(token) or token == "$crate":
                if before not in ("::", ".", "'") or (before == "." and toks[i - 2] == "."):
                    path, j = [str(token)], i
                    while toks[j + 1 : j + 2] == ["::"] and j + 2 < len(toks) and NAME.match(toks[j + 2]):
                        path.append(str(toks[j + 2]))
                        j += 2
                    if token not in KEYWORDS or len(path) > 1:
                        module.spots.append((path, token.line))
            i += 1

    @staticmethod
    def visibility(toks, i):
        """Whether the `)` before `i` ends a `pub(…)`."""
        j = i - 1
        while j > 0 and toks[j] != "(":
            j -= 1
        return toks[j - 1] == "pub"

    @staticmethod
    def implemented(toks, i):
        """The path of the type of an inherent `impl` that begins at `i`, with its line; nothing if it is a trait's."""

        def generics(j):
            depth = 0
            while j < len(toks):
                if toks[j] == "<":
                    depth += 1
                elif toks[j] == ">" and toks[j - 1] not in ("-", "="):
                    depth -= 1
                    if not depth:
                        return j + 1
                j += 1
            return j

        j = i + 1
        if toks[j : j + 1] == ["<"]:
            j = generics(j)
        path = []
        while j < len(toks) and (NAME.match(toks[j]) or toks[j] == "::") and toks[j] not in ("for", "where"):
            if toks[j] != "::":
                path.append(str(toks[j]))
            j += 1
        if toks[j : j + 1] == ["<"]:
            j = generics(j)
        return [(path, toks[i].line)] if path and toks[j : j + 1] in (["{"], ["where"]) else []

    # Resolving

    def resolve(self, module, path, seen=()):
        """The module that defines what a path names, and the name (none if it names the module); or None."""
        if not path or (module, tuple(path)) in seen or len(seen) > 40:
            return None
        seen = (*seen, (module, tuple(path)))
        at, rest = module, list(path)
        first = rest[0]
        if first in ("crate", "$crate"):
            at, rest = module.root(), rest[1:]
        elif first in ("self", "super"):
            while rest and rest[0] in ("self", "super"):
                if rest[0] == "super":
                    if at.parent is None:
                        return None
                    at = at.parent
                rest = rest[1:]
        elif first == self.lib_name and self.lib and first not in module.children and first not in module.uses:
            at, rest = self.lib, rest[1:]
        elif not self.known(module, first, seen):
            return None
        while rest:
            found = self.member(at, rest[0], seen)
            if found is None:
                return (at, rest[0])
            at, name = found
            if name is not None:
                return (at, name)
            rest = rest[1:]
        return (at, None)

    def known(self, module, name, seen):
        return self.member(module, name, seen) is not None

    def member(self, module, name, seen):
        """What a name of a module is: (module, None), or (the module that defines it, name), or None."""
        if name in module.children:
            return (module.children[name], None)
        if name in module.defined:
            return (module.defined[name], name)
        for use in module.uses.get(name, ()):
            if use.path == [name]:
                continue
            found = self.resolve(module, use.path, seen)
            if found:
                return found
        for glob in module.globs:
            found = self.resolve(module, glob.path, seen)
            if found and found[1] is None and found[0] is not module and (module, name, "glob") not in seen:
                through = self.member(found[0], name, (*seen, (module, name, "glob")))
                if through:
                    return through
        return None

    def edge(self, module, line, target, name):
        if target.file != module.file:
            self.edges[(module.file, target.file)].append((line, name or (target.path or ("crate",))[-1]))

    def imports(self, module):
        declared = set()  # names that the module only hands on, unless its own code has them
        modules = set()  # names of modules: what counts is what is reached through them
        for uses in module.uses.values():
            for use in uses:
                found = self.resolve(module, use.path)
                if not found:
                    continue
                if found[1] is None:
                    modules.add(use.name)
                elif use.public and found[0] is not module and found[0].inside(module):
                    declared.add(use.name)
                else:
                    self.edge(module, use.line, *found)
        hidden = set(module.defined) | (set(module.uses) - declared)
        begins = {"crate", "$crate", "self", "super", *module.children, *modules} | ({self.lib_name} if self.lib else set())
        for path, line in module.spots:
            first = path[0]
            if first in begins:
                if len(path) > 1:
                    found = self.resolve(module, path)
                    if found:
                        self.edge(module, line, *found)
            elif first in declared:
                found = self.resolve(module, [first])
                if found:
                    self.edge(module, line, *found)
            elif first not in hidden and module.globs:
                for glob in module.globs:
                    source = self.resolve(module, glob.path)
                    if source and source[1] is None and not (glob.public and source[0].inside(module) and source[0] is not module):
                        found = self.member(source[0], first, ())
                        if found and found[0].inside(module.root()):
                            self.edge(module, line, *found)

    # Judging

    def circles(self):
        """Each circle: its files, and the type whose `impl` blocks excuse it, or None."""
        graph = defaultdict(set)
        for a, b in self.edges:
            graph[a].add(b)
        for files in components(graph):
            yield files, self.spread(files, graph)

    def folder(self, file):
        """The folder of the module that a file is, or belongs to; None for those of the crate's root."""
        src = self.directory / "src"
        if file.name == "mod.rs":
            return file.parent
        if file.with_suffix("").is_dir():
            return file.with_suffix("")
        return file.parent if file.parent != src else None

    def spread(self, files, graph):
        """The types whose `impl` blocks, spread over files of one folder, are the whole reason of a circle."""
        folders = {self.folder(f) for f in files}
        top = min(folders, key=lambda f: len(f.parts) if f else 0)
        if top is None or any(f != top and top not in f.parents for f in folders):
            return None
        where = defaultdict(set)
        for module in self.modules:
            if module.file in files:
                for path, _ in module.impls:
                    if found := self.resolve(module, path):
                        where[(found[0], found[1])].add(module.file)
        group, types = {f: f for f in files}, []
        for (_, name), spread in sorted(where.items(), key=lambda kv: str(kv[0][1])):
            if len(spread) > 1:
                types.append(name)
                joined = {group[f] for f in spread}
                first = min(joined)
                group = {f: first if g in joined else g for f, g in group.items()}
        merged = defaultdict(set)
        for a in files:
            for b in graph[a] & set(files):
                if group[a] != group[b]:
                    merged[group[a]].add(group[b])
        return types if types and not list(components(merged)) else None

    def short(self, files):
        """A shortest circle among files, as a list of them."""
        files, best = set(files), None
        after = {a: sorted(b for (x, b) in self.edges if x == a and b in files) for a in files}
        for start in sorted(files):
            paths, seen = [[start]], {start}
            while paths:
                path = paths.pop(0)
                if best and len(path) >= len(best):
                    break
                if start in after[path[-1]]:
                    best = path
                    break
                for b in after[path[-1]]:
                    if b not in seen:
                        seen.add(b)
                        paths.append([*path, b])
        return best


def components(graph):
    """The strongly connected components of more than one node, sorted."""
    index, low, stack, on, found = {}, {}, [], set(), []
    for root in sorted(set(graph) | {b for bs in graph.values() for b in bs}):
        if root in index:
            continue
        work = [(root, iter(sorted(graph.get(root, ()))))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on.add(root)
        while work:
            node, rest = work[-1]
            for b in rest:
                if b not in index:
                    index[b] = low[b] = len(index)
                    stack.append(b)
                    on.add(b)
                    work.append((b, iter(sorted(graph.get(b, ())))))
                    break
                if b in on:
                    low[node] = min(low[node], index[b])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    part = []
                    while not part or part[-1] != node:
                        part.append(stack.pop())
                        on.discard(part[-1])
                    if len(part) > 1:
                        found.append(sorted(part))
    return sorted(found)


def names(imports):
    """`:LINE NAME, NAME` of the imports of one file by another."""
    kinds = sorted({str(n) for _, n in imports})
    shown = ", ".join(kinds[:5]) + (f" and {len(kinds) - 5} more" if len(kinds) > 5 else "")
    return min(line for line, _ in imports), shown


def report(crate, top, verbose=False):
    """Prints what a crate has. The number of circles that are not allowed."""

    def imported(a, b):
        line, shown = names(crate.edges[(a, b)])
        return f"    {a.relative_to(top)}:{line} imports {shown} from {b.relative_to(top)}"

    circles = list(crate.circles())
    bad = [files for files, spread in circles if not spread]
    in_files = sum(map(len, bad))
    print(f"{crate.name}: " + (f"{len(bad)} circle{'s' * (len(bad) > 1)}, {in_files} files" if bad else "no circle"))
    for files, spread in circles:
        if spread and not verbose:
            continue
        print(f"  {len(files)} files" + (f", allowed: impl {', '.join(spread)} is spread over them" if spread else ", for example:"))
        short = crate.short(files)
        for a, b in zip(short, [*short[1:], short[0]]):
            print(imported(a, b))
        if verbose:
            print("  all imports between them:")
            for a, b in sorted(crate.edges):
                if a in files and b in files:
                    print(imported(a, b))
    return len(bad)


def main(arguments):
    if "--help" in arguments:
        print(__doc__.strip())
        return 0
    verbose = "--verbose" in arguments
    wanted = [a for a in arguments if a != "--verbose"]
    members = tomllib.loads((TOP / "Cargo.toml").read_text())["workspace"]["members"]
    found = 0
    for member in members:
        if not (TOP / member / "src").is_dir():
            continue
        crate = Crate(TOP / member)
        if not wanted or crate.name in wanted or member in wanted:
            wanted = [w for w in wanted if w not in (crate.name, member)] or ([] if not wanted else [None])
            found += report(crate, TOP, verbose)
    unknown = [w for w in wanted if w]
    if unknown:
        print(f"circles.py: no crate {', '.join(unknown)}", file=sys.stderr)
        return 2
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
