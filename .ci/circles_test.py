"""Tests of circles.py, on small crates in temporary directories."""

import contextlib
import io
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import circles


class Circles(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.top = Path(folder.name)

    def crate(self, **files):
        """A crate with these files; `__` in a name stands for `/`."""
        (self.top / "Cargo.toml").write_text('[package]\nname = "a-crate"\n')
        for name, text in files.items():
            path = self.top / "src" / f"{name.replace('__', '/')}.rs"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return circles.Crate(self.top)

    def edges(self, crate):
        src = self.top / "src"
        return {(str(a.relative_to(src)), str(b.relative_to(src))) for a, b in crate.edges}

    def refused(self, crate):
        return [sorted(f.name for f in files) for files, spread in crate.circles() if not spread]

    def test_two_files_that_import_each_other(self):
        crate = self.crate(lib="mod a; mod b;", a="use crate::b::B;\npub struct A;", b="\nuse super::a::A;\npub struct B;")
        self.assertEqual(self.refused(crate), [["a.rs", "b.rs"]])
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            self.assertEqual(circles.report(crate, self.top), 1)
        self.assertIn("a-crate: 1 circle, 2 files", out.getvalue())
        self.assertIn("src/a.rs:1 imports B from src/b.rs", out.getvalue())
        self.assertIn("src/b.rs:2 imports A from src/a.rs", out.getvalue())

    def test_floors_are_no_circle(self):
        crate = self.crate(lib="mod a; mod b;", a="use crate::b::B;", b="pub struct B;")
        self.assertEqual(self.edges(crate), {("a.rs", "b.rs")})
        self.assertEqual(self.refused(crate), [])

    def test_a_name_of_the_root_counts_as_the_file_that_defines_it(self):
        crate = self.crate(lib="mod error; mod b;\npub use error::{Bad as Worse};", error="pub enum Bad { X }", b="use crate::Worse;")
        self.assertEqual(self.edges(crate), {("b.rs", "error.rs")})

    def test_reexports_are_followed_through_several_modules_and_globs(self):
        crate = self.crate(
            lib="mod m; mod b; pub use m::*;", m__mod="mod deep; pub use deep::*;", m__deep="pub fn f() {}", b="fn g() { crate::f(); }"
        )
        self.assertEqual(self.edges(crate), {("b.rs", "m/deep.rs")})

    def test_a_parent_that_uses_what_it_hands_on_imports_it(self):
        handed_on = "mod x; pub use x::X;\n"
        crate = self.crate(lib="mod m;", m__mod=handed_on + "pub struct Y;", m__x="use super::Y; pub struct X(Y);")
        self.assertEqual(self.refused(crate), [])
        crate = self.crate(lib="mod m;", m__mod=handed_on + "pub struct Y(X);", m__x="use super::Y; pub struct X(Y);")
        self.assertEqual(self.refused(crate), [["mod.rs", "x.rs"]])

    def test_a_parent_that_calls_its_child_by_path(self):
        crate = self.crate(lib="mod m;", m="mod x; pub fn f() { x::g() }", m__x="pub fn g() { super::f() }")
        self.assertEqual(self.refused(crate), [["m.rs", "x.rs"]])

    def test_paths_in_code_and_nested_trees(self):
        crate = self.crate(
            lib="mod a; mod b; mod c;",
            a="use crate::{b::{self, B}, c::C as D};\nfn f() { b::g() }",
            b="pub struct B; pub fn g() { let x: crate::c::C = todo(); }",
            c="pub struct C;",
        )
        self.assertEqual(self.edges(crate), {("a.rs", "b.rs"), ("a.rs", "c.rs"), ("b.rs", "c.rs")})

    def test_through_a_module_that_is_imported_counts_what_is_reached(self):
        crate = self.crate(lib="mod a; mod m;", a="use crate::m;\nfn f() { m::x::g() }\npub struct A;", m="pub mod x; use crate::a::A;", m__x="pub fn g() {}")
        self.assertEqual(self.edges(crate), {("a.rs", "m/x.rs"), ("m.rs", "a.rs")})

    def test_what_is_no_code_is_no_import(self):
        text = '// crate::b::B\n/* use crate::b::B; /* */ crate::b::B */\nfn f<\'a>() { "crate::b::B"; r#"crate::b::B "x" "#; \'"\'; }\n'
        crate = self.crate(lib="mod a; mod b;", a=text + "//! [`crate::b::B`]", b="use crate::a::f; pub struct B;")
        self.assertEqual(self.edges(crate), {("b.rs", "a.rs")})

    def test_tests_are_left_out(self):
        text = "pub struct B;\n#[cfg(test)]\n#[allow(x)]\nmod tests { use crate::a::A; }\n#[cfg(test)] use crate::a::A;\n#[cfg(test)] mod more;"
        crate = self.crate(lib="mod a; mod b;", a="use crate::b::B; pub struct A;", b=text, b__more="use crate::a::A;")
        self.assertEqual(self.edges(crate), {("a.rs", "b.rs")})
        other = "#[cfg(not(test))] use crate::a::A; pub struct B;"
        self.assertIn(("b.rs", "a.rs"), self.edges(self.crate(lib="mod a; mod b;", a="pub struct A;", b=other)))

    def test_a_glob_is_an_import_of_the_names_that_are_used(self):
        crate = self.crate(lib="mod m;", m="mod x; mod y; pub struct M; use y::Y;", m__x="use super::*; fn f(_: Y) {}", m__y="pub struct Y;")
        self.assertIn(("m/x.rs", "m/y.rs"), self.edges(crate))
        self.assertNotIn(("m/x.rs", "m.rs"), self.edges(crate))

    def test_inline_modules_belong_to_their_file(self):
        crate = self.crate(lib="mod a; mod b;", a="pub mod inner { use super::super::b::B; pub struct I; }", b="use crate::a::inner::I; pub struct B;")
        self.assertEqual(self.refused(crate), [["a.rs", "b.rs"]])

    def test_the_binary_uses_the_library_by_its_name(self):
        crate = self.crate(lib="pub mod a;", a="pub struct A;", main="mod m; use a_crate::a::A; struct R;", m="use crate::R; fn f() { a_crate::a::A; }")
        self.assertEqual(self.edges(crate), {("main.rs", "a.rs"), ("m.rs", "a.rs"), ("m.rs", "main.rs")})

    spread = {
        "m__mod": "mod x; mod y; pub struct M; impl M { fn f() { x::helper() } }",
        "m__x": "use super::M; impl M { fn g() {} } pub fn helper() {}",
    }

    def test_one_impl_spread_over_a_folder_is_allowed(self):
        crate = self.crate(lib="mod m;", **self.spread, m__y="")
        self.assertEqual([spread for _, spread in crate.circles()], [["M"]])
        self.assertEqual(self.refused(crate), [])

    def test_a_spread_impl_does_not_excuse_other_files(self):
        other = dict(self.spread, m__mod=self.spread["m__mod"] + " fn h() { y::k() }")
        crate = self.crate(lib="mod m;", **other, m__y="pub fn k() { super::M::f() }")
        self.assertEqual(self.refused(crate), [["mod.rs", "x.rs", "y.rs"]])

    def test_the_root_is_no_folder_of_one_subject(self):
        crate = self.crate(lib="mod a; mod b;", a="use crate::b::h; pub struct A; impl A {}", b="use crate::a::A; impl A {} pub fn h() {}")
        self.assertEqual(self.refused(crate), [["a.rs", "b.rs"]])

    def test_an_impl_of_a_trait_is_not_spread(self):
        crate = self.crate(
            lib="mod m;", m__mod="mod x; pub struct M; impl M { fn f() { x::h() } }", m__x="use super::M; impl Drop for M {} pub fn h() {}"
        )
        self.assertEqual(self.refused(crate), [["mod.rs", "x.rs"]])

    def test_impls_with_parameters(self):
        toks = circles.tokens("impl<E: Env, F: Fn(u8) -> u8> a::Log<E> where E: Sized { }")
        self.assertEqual(circles.Crate.implemented(toks, 0), [(["a", "Log"], 1)])
        self.assertEqual(circles.Crate.implemented(circles.tokens("impl<T> From<T> for Log<T> {}"), 0), [])

    def test_three_in_a_circle_are_told_by_a_short_one(self):
        crate = self.crate(lib="mod a; mod b; mod c;", a="use crate::b::B; pub struct A;", b="use crate::c::C; pub struct B;", c="use crate::a::A; pub struct C;")
        self.assertEqual(self.refused(crate), [["a.rs", "b.rs", "c.rs"]])
        self.assertEqual([f.name for f in crate.short(next(crate.circles())[0])], ["a.rs", "b.rs", "c.rs"])


if __name__ == "__main__":
    unittest.main()
