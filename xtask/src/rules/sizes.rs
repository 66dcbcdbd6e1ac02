//! How long files and functions are, how many arguments they take, how small a crate is.

use std::collections::BTreeMap;

use syn::{
    FnArg, ImplItemFn, ItemFn, ItemImpl, Signature, TraitItemFn,
    spanned::Spanned,
    visit::{self, Visit},
};

use crate::{
    source::{Role, Source},
    violation::Violation,
};

const MOST_FILE_LINES: usize = 600;
const MOST_FUNCTION_LINES: usize = 60;
const MOST_ARGUMENTS: usize = 6;
const FEWEST_CRATE_LINES: usize = 500;

/// Measures everything.
pub fn check(sources: &[Source]) -> Vec<Violation> {
    let mut found = small_crates(sources);
    for source in sources {
        found.extend(long_file(source));
        let mut measure = Measure { path: &source.path, foreign: false, found: &mut found };
        measure.visit_file(&source.file);
    }
    found
}

fn long_file(source: &Source) -> Option<Violation> {
    let lines = source.shipped_lines();
    (lines > MOST_FILE_LINES).then(|| Violation {
        path: source.path.clone(),
        line: 1,
        rule: "file-lines",
        name: None,
        what: "file without its tests".to_owned(),
        got: format!("{lines} lines"),
        limit: MOST_FILE_LINES.to_string(),
        way_out: "split it where a reader would",
    })
}

fn small_crates(sources: &[Source]) -> Vec<Violation> {
    let mut lines: BTreeMap<&str, usize> = BTreeMap::new();
    for source in sources.iter().filter(|source| source.role() == Role::Shipped) {
        if let Some(name) = source.path.strip_prefix("crates/").and_then(|rest| rest.split('/').next()) {
            *lines.entry(name).or_default() += source.shipped_lines();
        }
    }
    let small = lines.into_iter().filter(|&(_, lines)| lines < FEWEST_CRATE_LINES);
    small
        .map(|(name, lines)| Violation {
            path: format!("crates/{name}/Cargo.toml"),
            line: 1,
            rule: "crate-lines",
            name: Some(name.to_owned()),
            what: format!("crate {name} without its tests"),
            got: format!("{lines} lines"),
            limit: format!("at least {FEWEST_CRATE_LINES}"),
            way_out: "merge it into its caller",
        })
        .collect()
}

struct Measure<'a> {
    path: &'a str,
    /// Inside `impl Trait for`: the trait decides on the arguments.
    foreign: bool,
    found: &'a mut Vec<Violation>,
}

impl Measure<'_> {
    fn function(&mut self, signature: &Signature, whole: &impl Spanned) {
        let start = signature.span().start().line;
        let lines = whole.span().end().line + 1 - start;
        let arguments = signature.inputs.iter().filter(|input| matches!(input, FnArg::Typed(_))).count();
        if lines > MOST_FUNCTION_LINES {
            let way_out = "give a part of it a name of its own";
            self.push(signature, "function-lines", format!("{lines} lines"), MOST_FUNCTION_LINES, way_out);
        }
        if arguments > MOST_ARGUMENTS && !self.foreign {
            let way_out = "make a struct of those that belong together";
            self.push(signature, "arguments", arguments.to_string(), MOST_ARGUMENTS, way_out);
        }
    }

    fn push(&mut self, signature: &Signature, rule: &'static str, got: String, limit: usize, way_out: &'static str) {
        self.found.push(Violation {
            path: self.path.to_owned(),
            line: signature.span().start().line,
            rule,
            name: Some(signature.ident.to_string()),
            what: format!("fn {}", signature.ident),
            got,
            limit: limit.to_string(),
            way_out,
        });
    }
}

impl<'ast> Visit<'ast> for Measure<'_> {
    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.function(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        self.function(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast TraitItemFn) {
        self.function(&function.sig, function);
        visit::visit_trait_item_fn(self, function);
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        let outer = std::mem::replace(&mut self.foreign, item.trait_.is_some());
        visit::visit_item_impl(self, item);
        self.foreign = outer;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<&'static str> {
        let found = check(&[Source::parse(path, text).unwrap()]);
        found.iter().map(|one| one.rule).filter(|&rule| rule != "crate-lines").collect()
    }

    #[test]
    fn a_file_over_the_limit_is_found_and_its_tests_do_not_count() {
        let lines = "// a line\n".repeat(MOST_FILE_LINES);
        assert_eq!(rules("crates/a/src/lib.rs", &format!("{lines}fn one_more() {{}}\n")), ["file-lines"]);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{lines}}}\n");
        assert!(rules("crates/a/src/lib.rs", &format!("{lines}{tests}")).is_empty());
    }

    #[test]
    fn a_function_of_61_lines_is_found_and_one_of_60_is_not() {
        let function =
            |inside: usize| format!("/// Docs.\n#[inline]\nfn f() {{\n{}}}\n", "    call();\n".repeat(inside));
        assert!(rules("crates/a/src/lib.rs", &function(58)).is_empty());
        assert_eq!(rules("crates/a/src/lib.rs", &function(59)), ["function-lines"]);
        let method = format!("struct A;\nimpl A {{\n{}}}\n", function(59));
        assert_eq!(rules("crates/a/src/lib.rs", &method), ["function-lines"]);
    }

    #[test]
    fn seven_arguments_are_found_except_where_a_trait_asks_for_them() {
        let method = "fn f(&self, a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8) {}";
        assert_eq!(rules("crates/a/src/lib.rs", &format!("impl A {{ {method} }}")), ["arguments"]);
        assert!(rules("crates/a/src/lib.rs", &format!("impl Foreign for A {{ {method} }}")).is_empty());
        assert!(
            rules("crates/a/src/lib.rs", "impl A { fn f(&self, a: u8, b: u8, c: u8, d: u8, e: u8, f: u8) {} }")
                .is_empty()
        );
    }

    #[test]
    fn a_crate_of_few_lines_is_found() {
        let found = check(&[Source::parse("crates/tiny/src/lib.rs", "fn f() {}").unwrap()]);
        assert_eq!(found[0].rule, "crate-lines");
        assert_eq!(found[0].name.as_deref(), Some("tiny"));
    }
}
