//! Rust files, parsed once for all rules, with the lines that are test code.

use std::ops::RangeInclusive;

use syn::{
    Attribute, ImplItemFn, Item, ItemFn, ItemMod, Local, Meta,
    spanned::Spanned,
    visit::{self, Visit},
};

use crate::{tree::Tree, violation::Violation};

/// A parsed file.
pub struct Source {
    /// Path from the root.
    pub path: String,
    /// The text, for the comments that the parser drops.
    pub text: String,
    /// The syntax tree, with spans.
    pub file: syn::File,
    /// Lines of `#[cfg(test)]` items and `#[test]` functions, from 1.
    pub tests: Vec<RangeInclusive<usize>>,
    /// Lines under `#[expect(clippy::unwrap_used, reason = "...")]` or its like for `expect`.
    pub invariants: Vec<RangeInclusive<usize>>,
    /// The whole file is test code, because `#[cfg(test)] mod name;` elsewhere says so.
    pub test_module: bool,
    /// Names of the modules that this file declares so.
    test_modules: Vec<String>,
}

/// What a file is for, told by where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Part of what is shipped.
    Shipped,
    /// Integration tests.
    Test,
    /// Developers' tools: xtask, benches, examples, build scripts.
    Tool,
}

/// Parses every Rust file; what does not parse is a violation.
pub fn parse_all(tree: &Tree) -> (Vec<Source>, Vec<Violation>) {
    let (mut sources, mut broken) = (Vec::new(), Vec::new());
    for file in tree.files.iter().filter(|file| file.path.ends_with(".rs")) {
        let Some(text) = &file.text else { continue };
        match Source::parse(&file.path, text) {
            Ok(source) => sources.push(source),
            Err(error) => broken.push(Violation {
                path: file.path.clone(),
                line: error.span().start().line,
                rule: "parse",
                name: None,
                what: "not Rust".to_owned(),
                got: error.to_string(),
                limit: "a file that parses".to_owned(),
                way_out: "run cargo check",
            }),
        }
    }
    mark_test_modules(&mut sources);
    (sources, broken)
}

/// Marks the files that another file declares as `#[cfg(test)] mod name;`.
fn mark_test_modules(sources: &mut [Source]) {
    let declared: Vec<String> = sources.iter().flat_map(Source::test_module_paths).collect();
    for source in sources {
        source.test_module = declared.contains(&source.path);
    }
}

impl Source {
    /// Parses one file.
    pub fn parse(path: &str, text: &str) -> syn::Result<Self> {
        let file = syn::parse_file(text)?;
        let mut finder = Finder::default();
        finder.visit_file(&file);
        Ok(Self {
            path: path.to_owned(),
            text: text.to_owned(),
            file,
            tests: finder.lines,
            invariants: finder.invariants,
            test_module: false,
            test_modules: finder.modules,
        })
    }

    /// Where the test modules that this file declares lie: beside `lib.rs`, else in its own folder.
    fn test_module_paths(&self) -> Vec<String> {
        let stem = self.path.trim_end_matches(".rs");
        let roots = ["/lib", "/main", "/mod"];
        let folder = roots.iter().find_map(|root| stem.strip_suffix(root)).unwrap_or(stem);
        self.test_modules.iter().map(|name| format!("{folder}/{name}.rs")).collect()
    }

    /// What the file is for.
    pub fn role(&self) -> Role {
        let mut parts = self.path.split('/');
        if self.path.starts_with("xtask/") || self.path.ends_with("/build.rs") {
            return Role::Tool;
        }
        match parts.nth(2) {
            Some("tests") => Role::Test,
            Some("benches" | "examples") => Role::Tool,
            _ if self.test_module => Role::Test,
            _ => Role::Shipped,
        }
    }

    /// Whether the line is test code.
    pub fn in_test(&self, line: usize) -> bool {
        self.role() == Role::Test || self.tests.iter().any(|lines| lines.contains(&line))
    }

    /// Number of lines that are not test code.
    pub fn shipped_lines(&self) -> usize {
        (1..=self.text.lines().count()).filter(|&line| !self.in_test(line)).count()
    }
}

#[derive(Default)]
struct Finder {
    lines: Vec<RangeInclusive<usize>>,
    modules: Vec<String>,
    invariants: Vec<RangeInclusive<usize>>,
}

impl Finder {
    fn note(&mut self, attributes: &[Attribute], item: &impl Spanned) -> bool {
        let found = attributes.iter().any(marks_test);
        if found {
            let span = item.span();
            self.lines.push(span.start().line..=span.end().line);
        }
        found
    }
}

impl Finder {
    fn note_invariant(&mut self, attributes: &[Attribute], under: &impl Spanned) {
        if attributes.iter().any(states_invariant) {
            let span = under.span();
            self.invariants.push(span.start().line..=span.end().line);
        }
    }
}

impl<'ast> Visit<'ast> for Finder {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Fn(ItemFn { attrs, .. }) => attrs,
            Item::Impl(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Const(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            Item::Macro(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !self.note(attributes, item) {
            visit::visit_item(self, item);
        } else if let Item::Mod(ItemMod { content: None, ident, .. }) = item {
            self.modules.push(ident.to_string());
        }
    }

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.note_invariant(&function.attrs, function);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        self.note_invariant(&function.attrs, function);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_local(&mut self, local: &'ast Local) {
        self.note_invariant(&local.attrs, local);
        visit::visit_local(self, local);
    }
}

/// `#[test]`, `#[cfg(test)]`, `#[cfg(all(test, ...))]`; not `#[cfg(not(test))]`.
fn marks_test(attribute: &Attribute) -> bool {
    match &attribute.meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("cfg") => {
            let condition = list.tokens.to_string();
            let words = || condition.split(|sign: char| !sign.is_alphanumeric() && sign != '_');
            words().any(|word| word == "test") && words().all(|word| word != "not")
        }
        _ => false,
    }
}

/// `#[expect(clippy::unwrap_used, reason = "...")]`: the form that clippy asks for.
fn states_invariant(attribute: &Attribute) -> bool {
    let Meta::List(list) = &attribute.meta else {
        return false;
    };
    let inside = list.tokens.to_string();
    let names = inside.contains("unwrap_used") || inside.contains("expect_used");
    list.path.is_ident("expect") && names && inside.contains("reason")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_modules_are_not_shipped_lines() {
        let text = "fn shipped() {}\n\n#[cfg(test)]\nmod tests {\n    fn helper() {}\n}\n";
        let source = Source::parse("crates/a/src/lib.rs", text).unwrap();
        assert_eq!(source.tests, [3..=6]);
        assert_eq!(source.shipped_lines(), 2);
    }

    #[test]
    fn a_test_module_in_a_file_of_its_own_is_test_code() {
        let declaring = "#[cfg(test)]\nmod check;\nmod shipped;\n";
        for (parent, child) in [("src/lib.rs", "src/check.rs"), ("src/nn.rs", "src/nn/check.rs")] {
            let path = |name: &str| format!("crates/a/{name}");
            let mut sources = [
                Source::parse(&path(parent), declaring).unwrap(),
                Source::parse(&path(child), "").unwrap(),
                Source::parse(&path("src/shipped.rs"), "").unwrap(),
            ];
            mark_test_modules(&mut sources);
            let roles = sources.map(|source| source.role());
            assert_eq!(roles, [Role::Shipped, Role::Test, Role::Shipped], "{parent}");
        }
    }

    #[test]
    fn code_for_anything_but_tests_is_shipped() {
        let text = "#[cfg(not(test))]\nfn shipped() {}\n#[cfg(feature = \"cuda\")]\nfn also() {}\n";
        assert!(Source::parse("crates/a/src/lib.rs", text).unwrap().tests.is_empty());
    }

    #[test]
    fn roles_follow_the_place() {
        for (path, role) in [
            ("crates/a/src/lib.rs", Role::Shipped),
            ("crates/a/tests/ask.rs", Role::Test),
            ("crates/a/benches/decoder.rs", Role::Tool),
            ("crates/a/build.rs", Role::Tool),
            ("xtask/src/main.rs", Role::Tool),
        ] {
            assert_eq!(Source::parse(path, "").unwrap().role(), role, "{path}");
        }
    }
}
