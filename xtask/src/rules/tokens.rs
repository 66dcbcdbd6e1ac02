//! Words that may stand only in some places: sizes by index, `unwrap`, printing, the environment.
//!
//! The rules read tokens and not the syntax tree, because most offenders hide inside macros, which the
//! parser leaves as tokens.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::{
    source::{Role, Source},
    violation::Violation,
};

/// The only file of the shipped program that prints.
const PRINTER: &str = "crates/cli/src/messages.rs";
/// The only crate that reads the environment.
const ENVIRONMENT_READER: &str = "crates/cli/";
/// The comment that allows `unwrap` and `expect`: it states why they cannot fail.
const INVARIANT: &str = "// invariant:";

/// Looks through all files.
pub fn check(sources: &[Source]) -> Vec<Violation> {
    let mut found = Vec::new();
    for source in sources {
        // Whitespace and comments are gone from the stream, so spelling it over lines hides nothing.
        if let Ok(tokens) = source.text.parse::<TokenStream>() {
            Scan { source, found: &mut found }.stream(tokens);
        }
    }
    found
}

struct Scan<'a> {
    source: &'a Source,
    found: &'a mut Vec<Violation>,
}

impl Scan<'_> {
    fn stream(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for place in 0..tokens.len() {
            self.size_by_index(&tokens[place..]);
            self.unwrap(&tokens[place..]);
            self.printing(&tokens[place..]);
            self.environment(&tokens[place..]);
            if let TokenTree::Group(group) = &tokens[place] {
                self.stream(group.stream());
            }
        }
    }

    fn size_by_index(&mut self, tokens: &[TokenTree]) {
        let [name, arguments, next, ..] = tokens else {
            return;
        };
        let indexed = group(next, Delimiter::Bracket).is_some()
            || (punct(next, '.') && tokens.get(3).is_some_and(|after| word_in(after, &["get", "first", "last"])));
        let empty = group(arguments, Delimiter::Parenthesis).is_some_and(|inside| inside.is_empty());
        if word_in(name, &["dims"]) && empty && indexed {
            self.push(name, "size-by-index", "dims() by index", "none", "destructure: let [b, p, d] = ...");
        }
    }

    fn unwrap(&mut self, tokens: &[TokenTree]) {
        let [dot, name, arguments, ..] = tokens else {
            return;
        };
        let called = group(arguments, Delimiter::Parenthesis).is_some();
        if !(punct(dot, '.') && word_in(name, &["unwrap", "expect", "unwrap_err", "expect_err"]) && called) {
            return;
        }
        let line = line(name);
        if self.source.role() == Role::Shipped && !self.source.in_test(line) && !self.states_invariant(line) {
            let limit = "tests, or a line with `// invariant: why`";
            self.push(name, "unwrap", &format!(".{name}()"), limit, "return an error, or state the invariant");
        }
    }

    /// In an attribute with a reason, on the line itself, or on a comment line right above it.
    fn states_invariant(&self, line: usize) -> bool {
        if self.source.invariants.iter().any(|lines| lines.contains(&line)) {
            return true;
        }
        let mut around = self.source.text.lines().skip(line.saturating_sub(2)).take(2);
        let above = around.next().unwrap_or_default().trim_start();
        above.starts_with(INVARIANT) || around.next().unwrap_or_default().contains(INVARIANT)
    }

    fn printing(&mut self, tokens: &[TokenTree]) {
        let [name, bang, ..] = tokens else { return };
        let prints = word_in(name, &["println", "print", "eprintln", "eprint", "dbg"]) && punct(bang, '!');
        let allowed =
            self.source.path == PRINTER || self.source.role() == Role::Tool || self.source.in_test(line(name));
        if prints && !allowed {
            self.push(name, "printing", &format!("{name}!"), PRINTER, "return the text, or call cli::messages");
        }
    }

    fn environment(&mut self, tokens: &[TokenTree]) {
        let [std, colon, second_colon, what, rest @ ..] = tokens else {
            return;
        };
        if !(word_in(std, &["std"]) && punct(colon, ':') && punct(second_colon, ':')) {
            return;
        }
        let constants = rest.get(2).is_some_and(|name| word_in(name, &["consts"]));
        let imported =
            group(what, Delimiter::Brace).is_some_and(|inside| inside.into_iter().any(|name| word_in(&name, &["env"])));
        let allowed = self.source.path.starts_with(ENVIRONMENT_READER)
            || self.source.role() != Role::Shipped
            || self.source.in_test(line(std));
        if ((word_in(what, &["env"]) && !constants) || imported) && !allowed {
            self.push(std, "environment", "std::env", ENVIRONMENT_READER, "take the value as an argument");
        }
    }

    fn push(&mut self, at: &TokenTree, rule: &'static str, what: &str, limit: &str, way_out: &'static str) {
        let line = line(at);
        let text = self.source.text.lines().nth(line.saturating_sub(1)).unwrap_or_default().trim();
        self.found.push(Violation {
            path: self.source.path.clone(),
            line,
            rule,
            name: None,
            what: what.to_owned(),
            got: format!("`{text}`"),
            limit: limit.to_owned(),
            way_out,
        });
    }
}

fn line(token: &TokenTree) -> usize {
    token.span().start().line
}

fn word_in(token: &TokenTree, words: &[&str]) -> bool {
    matches!(token, TokenTree::Ident(word) if words.iter().any(|one| word == one))
}

fn punct(token: &TokenTree, sign: char) -> bool {
    matches!(token, TokenTree::Punct(found) if found.as_char() == sign)
}

fn group(token: &TokenTree, delimiter: Delimiter) -> Option<TokenStream> {
    match token {
        TokenTree::Group(group) if group.delimiter() == delimiter => Some(group.stream()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<&'static str> {
        check(&[Source::parse(path, text).unwrap()]).iter().map(|one| one.rule).collect()
    }

    const LIBRARY: &str = "crates/model/src/a.rs";

    #[test]
    fn a_size_by_index_is_found_also_in_macros_and_over_lines() {
        for body in [
            "x.dims()[1];",
            "x\n.dims()\n[1];",
            "x.shape().dims()[0];",
            "assert_eq!(x.dims()[1], 4);",
            "x.dims().get(1);",
            "x.dims().last();",
        ] {
            assert_eq!(rules(LIBRARY, &format!("fn f() {{ {body} }}")), ["size-by-index"], "{body}");
        }
        assert!(rules(LIBRARY, "fn f() { let [b, p] = x.dims() else { return }; x.dims().len(); }").is_empty());
    }

    #[test]
    fn an_unwrap_is_found_unless_its_invariant_is_stated() {
        assert_eq!(rules(LIBRARY, "fn f() {\n    x.unwrap();\n    y.expect(\"it\");\n}"), ["unwrap", "unwrap"]);
        assert!(rules(LIBRARY, "fn f() {\n    x.unwrap(); // invariant: x was set above\n}").is_empty());
        assert!(rules(LIBRARY, "fn f() {\n    // invariant: x was set above\n    x.unwrap();\n}").is_empty());
        assert!(rules(LIBRARY, "fn f() { x.unwrap_or(1); }").is_empty());
        assert!(rules(LIBRARY, "#[cfg(test)]\nmod tests {\n    fn f() { x.unwrap(); }\n}").is_empty());
        assert!(rules("crates/model/tests/a.rs", "fn f() { x.unwrap(); }").is_empty());
    }

    #[test]
    fn an_attribute_with_a_reason_states_the_invariant_of_its_function() {
        let function = "fn f() {\n    x.unwrap();\n}\nfn g() {\n    y.unwrap();\n}";
        let reasoned = "#[expect(clippy::unwrap_used, reason = \"x is never empty\")]\n";
        assert_eq!(rules(LIBRARY, &format!("{reasoned}{function}")), ["unwrap"]);
        let bare = "#[expect(clippy::unwrap_used)]\n";
        assert_eq!(rules(LIBRARY, &format!("{bare}{function}")), ["unwrap", "unwrap"]);
    }

    #[test]
    fn an_invariant_excuses_its_own_line_only() {
        let text = "fn f() {\n    x.unwrap(); // invariant: x was set above\n    y.unwrap();\n}";
        assert_eq!(rules(LIBRARY, text), ["unwrap"]);
    }

    #[test]
    fn printing_is_found_outside_the_file_that_prints() {
        let text = "fn f() { println!(\"a\"); std::eprintln!(\"b\"); }";
        assert_eq!(rules(LIBRARY, text), ["printing", "printing"]);
        assert_eq!(rules("crates/cli/src/main.rs", text), ["printing", "printing"]);
        for path in [PRINTER, "xtask/src/main.rs", "crates/kernels/benches/decoder.rs", "crates/cli/build.rs"] {
            assert!(rules(path, text).is_empty(), "{path}");
        }
        assert!(rules(LIBRARY, "fn f() { writeln!(out, \"a\"); }").is_empty());
    }

    #[test]
    fn the_environment_is_read_by_the_command_line_only() {
        for text in ["fn f() { std::env::var(\"A\"); }", "use std::{env, fs};", "use std::env;"] {
            assert_eq!(rules(LIBRARY, text), ["environment"], "{text}");
            assert!(rules("crates/cli/src/main.rs", text).is_empty());
        }
        assert!(rules(LIBRARY, "fn f() { std::env::consts::ARCH; env!(\"CARGO_PKG_VERSION\"); }").is_empty());
    }
}
