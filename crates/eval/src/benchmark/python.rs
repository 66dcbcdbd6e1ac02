//! Lists that Python printed, such as `['a cup', "a dog's bowl", 3]`: texts and whole numbers, nothing else.

/// The elements of a list, as text.
///
/// # Errors
/// What stands in the way, and at which character, from 1. Two texts without a comma between them are refused: Python
/// would join them, but a file has them only where an array was printed in place of a list.
pub(super) fn list(text: &str) -> Result<Vec<String>, String> {
    let mut reader = Reader { rest: text.trim(), whole: text.trim() };
    reader.sign('[')?;
    let mut all = Vec::new();
    while !reader.next_is(']') {
        all.push(reader.element()?);
        if !reader.next_is(',') {
            break;
        }
        reader.sign(',')?;
    }
    reader.sign(']')?;
    reader.rest = reader.rest.trim_start();
    if reader.rest.is_empty() { Ok(all) } else { Err(reader.wrong("the end")) }
}

struct Reader<'a> {
    rest: &'a str,
    whole: &'a str,
}

impl Reader<'_> {
    fn wrong(&self, expected: &str) -> String {
        let read = &self.whole[..self.whole.len() - self.rest.len()];
        let found = self.rest.chars().next().map_or("the end".to_owned(), |c| format!("`{c}`"));
        format!("{found} in place of {expected}, at character {}", read.chars().count() + 1)
    }

    fn next_is(&mut self, sign: char) -> bool {
        self.rest = self.rest.trim_start();
        self.rest.starts_with(sign)
    }

    fn sign(&mut self, sign: char) -> Result<(), String> {
        self.rest = self.rest.trim_start();
        self.rest = self.rest.strip_prefix(sign).ok_or_else(|| self.wrong(&format!("`{sign}`")))?;
        Ok(())
    }

    fn element(&mut self) -> Result<String, String> {
        match self.rest.chars().next() {
            Some(quote @ ('\'' | '"')) => self.text(quote),
            _ => self.number(),
        }
    }

    fn number(&mut self) -> Result<String, String> {
        let digits = self.rest.strip_prefix('-').unwrap_or(self.rest);
        let after = digits.trim_start_matches(|c: char| c.is_ascii_digit());
        if digits.len() == after.len() || after.starts_with(|c: char| c == '.' || c.is_alphanumeric()) {
            return Err(self.wrong("a text in quotes or a whole number"));
        }
        let (number, rest) = self.rest.split_at(self.rest.len() - after.len());
        self.rest = rest;
        Ok(number.to_owned())
    }

    fn text(&mut self, quote: char) -> Result<String, String> {
        self.sign(quote)?;
        let mut text = String::new();
        // In runs, not by character: a text may be a picture of a megabyte.
        while let Some(at) = self.rest.find([quote, '\\', '\n']) {
            let (run, rest) = self.rest.split_at(at);
            text.push_str(run);
            self.rest = rest;
            if rest.starts_with(quote) {
                self.rest = &rest[1..];
                return Ok(text);
            }
            if rest.starts_with('\n') {
                return Err(self.wrong("the end of a text on its own line"));
            }
            self.escape(&mut text)?;
        }
        self.rest = "";
        Err(self.wrong("the end of a text"))
    }

    /// What follows a backslash. An unknown one stays, as Python has it.
    fn escape(&mut self, text: &mut String) -> Result<(), String> {
        let after = &self.rest[1..];
        let Some(sign) = after.chars().next() else {
            self.rest = "";
            return Err(self.wrong("what follows a backslash"));
        };
        let digits = match sign {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        if digits > 0 {
            let code =
                after.get(1..=digits).and_then(|code| u32::from_str_radix(code, 16).ok()).and_then(char::from_u32);
            text.push(code.ok_or_else(|| self.wrong("the code of a character"))?);
            self.rest = &after[1 + digits..];
            return Ok(());
        }
        match sign {
            '\n' => (),
            '\\' | '\'' | '"' => text.push(sign),
            'n' => text.push('\n'),
            't' => text.push('\t'),
            'r' => text.push('\r'),
            'a' => text.push('\u{7}'),
            'b' => text.push('\u{8}'),
            'v' => text.push('\u{b}'),
            'f' => text.push('\u{c}'),
            'N' | '0'..='7' => return Err(self.wrong("an escape other than octal numbers and names")),
            _ => text.extend(['\\', sign]),
        }
        self.rest = &after[sign.len_utf8()..];
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::list;

    #[test]
    fn lists_that_python_printed_are_read_back() {
        for (text, all) in [
            ("['$63,020', '$58,410']", &["$63,020", "$58,410"][..]),
            ("[]", &[]),
            (r#"["a dog's bowl", 'the "cup"', ]"#, &["a dog's bowl", "the \"cup\""]),
            (r"['it\'s', '\\frac{1}{2}', 'a\qb']", &["it's", "\\frac{1}{2}", "a\\qb"]),
            (r"['\xb0C', '\u03b1', '\U0001f600', 'a\tb\nc']", &["\u{b0}C", "\u{3b1}", "\u{1f600}", "a\tb\nc"]),
            (" [ 1 , -20,\n'x' ] ", &["1", "-20", "x"]),
            ("['α, [β]']", &["α, [β]"]),
        ] {
            assert_eq!(list(text), Ok(all.iter().map(|one| (*one).to_owned()).collect()), "{text}");
        }
    }

    #[test]
    fn what_is_no_list_of_texts_is_refused_where_it_goes_wrong() {
        for (text, reason) in [
            ("", "the end in place of `[`, at character 1"),
            ("a cup", "`a` in place of `[`, at character 1"),
            ("['a'", "the end in place of `]`, at character 5"),
            ("['a' 'b']", "`'` in place of `]`, at character 6"),
            ("['a', b]", "`b` in place of a text in quotes or a whole number, at character 7"),
            ("['a', None]", "`N` in place of a text in quotes or a whole number, at character 7"),
            ("[1.5]", "`1` in place of a text in quotes or a whole number, at character 2"),
            ("['a", "the end in place of the end of a text, at character 4"),
            ("['a\\", "the end in place of what follows a backslash, at character 5"),
            ("['\\xzz']", "`\\` in place of the code of a character, at character 3"),
            (r"['\0']", "`\\` in place of an escape other than octal numbers and names, at character 3"),
            ("['a'] x", "`x` in place of the end, at character 7"),
            ("[['a']]", "`[` in place of a text in quotes or a whole number, at character 2"),
        ] {
            assert_eq!(list(text), Err(reason.to_owned()), "{text}");
        }
    }
}
