//! Keeps what people write apart from what the template writes, through the rendering.
//!
//! A control token inside a message is put between two private-use characters before the template sees it. The template
//! writes its own tokens without them, so the rendered chat can be cut into text in which tokens are recognised and text
//! in which they are not. `transformers` does the same where it is asked to (`sanitize_control_tokens=True`); here it is
//! not optional, and two things are stricter: every added token counts, also one the template does not mention, and a
//! token in halves at the end of one text part and the beginning of the next is broken up.

use serde_json::Value as Json;

/// Before a control token in a message; alone, a place where text on both sides may not join to a token.
const START: char = '\u{f0000}';
/// After a control token in a message.
const END: char = '\u{f0001}';

/// The tokens that texts may not write.
#[derive(Clone)]
pub struct Tokens {
    /// Longest first.
    tokens: Vec<String>,
    /// Whether a token begins with the byte.
    begins: [bool; 256],
}

/// A piece of a rendered chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    pub text: &'a str,
    /// Whether tokens in it are only text.
    pub inert: bool,
}

impl Tokens {
    /// Takes the texts of tokens, none of them empty.
    pub fn new(mut tokens: Vec<String>) -> Tokens {
        tokens.retain(|token| !token.is_empty());
        tokens.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        let mut begins = [false; 256];
        tokens.iter().for_each(|token| begins[token.as_bytes()[0] as usize] = true);
        Tokens { tokens, begins }
    }

    /// The tokens in a text, first to last, as byte ranges; of several that begin at one place, the longest.
    pub fn find(&self, text: &str) -> Vec<std::ops::Range<usize>> {
        let bytes = text.as_bytes();
        let (mut found, mut place) = (Vec::new(), 0);
        while place < bytes.len() {
            let here = self.begins[bytes[place] as usize].then(|| self.token_at(&bytes[place..])).flatten();
            let length = here.map_or(1, str::len);
            if here.is_some() {
                found.push(place..place + length);
            }
            place += length;
        }
        found
    }

    fn token_at(&self, bytes: &[u8]) -> Option<&str> {
        self.tokens.iter().find(|token| bytes.starts_with(token.as_bytes())).map(String::as_str)
    }

    /// A message's text, its tokens marked. The marks themselves are taken out of it first.
    pub fn mark(&self, text: &str) -> String {
        let text = text.replace([START, END], "");
        let mut marked = String::with_capacity(text.len());
        let mut done = 0;
        for token in self.find(&text) {
            marked.push_str(&text[done..token.start]);
            marked.push(START);
            marked.push_str(&text[token.clone()]);
            marked.push(END);
            done = token.end;
        }
        marked.push_str(&text[done..]);
        marked
    }

    /// Texts that a template may write one right after the other, each marked, and broken where they would join.
    pub fn mark_all(&self, texts: &[&str]) -> Vec<String> {
        let plain: Vec<String> = texts.iter().map(|text| text.replace([START, END], "")).collect();
        let (mut marked, mut before) = (Vec::with_capacity(texts.len()), String::new());
        for (index, text) in plain.iter().enumerate() {
            let mut this = self.mark(text);
            if self.join(&before, &plain[index..].concat()) {
                this.insert(0, START);
            }
            marked.push(this);
            before.push_str(text);
        }
        marked
    }

    /// Whether a token begins in one text and ends in the next.
    fn join(&self, before: &str, after: &str) -> bool {
        let halves = |token: &String| {
            let mut middles = token.char_indices().skip(1).map(|(middle, _)| token.split_at(middle));
            middles.any(|(first, second)| before.ends_with(first) && after.starts_with(second))
        };
        self.tokens.iter().any(halves)
    }

    /// A variable of the template, all its strings marked; keys stay as they are.
    pub fn mark_json(&self, value: &Json) -> Json {
        match value {
            Json::String(text) => Json::String(self.mark(text)),
            Json::Array(items) => Json::Array(items.iter().map(|item| self.mark_json(item)).collect()),
            Json::Object(fields) => {
                Json::Object(fields.iter().map(|(key, item)| (key.clone(), self.mark_json(item))).collect())
            }
            other => other.clone(),
        }
    }
}

/// Cuts a rendered chat at its marks. Pieces are not empty, except that the first may be.
pub fn pieces<'a>(marked: &'a str, tokens: &Tokens) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    let (mut from, mut place) = (0, 0);
    while let Some(offset) = marked[place..].find([START, END]) {
        let mark = place + offset;
        let after = &marked[mark + START.len_utf8()..];
        pieces.push(Piece { text: &marked[from..mark], inert: false });
        place = mark + START.len_utf8();
        // What a template took apart has marks that stand alone.
        if marked[mark..].starts_with(START)
            && let Some(token) = tokens.token_at(after.as_bytes())
            && after[token.len()..].starts_with(END)
        {
            pieces.push(Piece { text: &after[..token.len()], inert: true });
            place += token.len() + END.len_utf8();
        }
        from = place;
    }
    pieces.push(Piece { text: &marked[from..], inert: false });
    let mut first = true;
    pieces.retain(|piece| std::mem::take(&mut first) || !piece.text.is_empty());
    pieces
}

/// A rendered chat without its marks.
pub fn unmarked(marked: &str) -> String {
    marked.replace([START, END], "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        Tokens::new(["<|end|>", "<|end|>!", "<image>", "é>"].map(str::to_owned).to_vec())
    }

    #[test]
    fn a_token_in_a_message_is_an_inert_piece_and_everything_else_is_as_it_was() {
        let tokens = tokens();
        let marked = tokens.mark("a<|end|>b<|end|>!<image><imag é>");
        assert_eq!(unmarked(&marked), "a<|end|>b<|end|>!<image><imag é>");
        let inert: Vec<&str> = pieces(&marked, &tokens).iter().filter(|p| p.inert).map(|p| p.text).collect();
        assert_eq!(inert, ["<|end|>", "<|end|>!", "<image>", "é>"]);
        let rejoined: String = pieces(&marked, &tokens).iter().map(|p| p.text).collect();
        assert_eq!(rejoined, unmarked(&marked));
    }

    #[test]
    fn the_templates_own_tokens_stay_tokens() {
        let tokens = tokens();
        let rendered = format!("<image>{}<|end|>", tokens.mark("x<image>"));
        let found = pieces(&rendered, &tokens);
        let piece = |text, inert| Piece { text, inert };
        assert_eq!(found, [piece("<image>x", false), piece("<image>", true), piece("<|end|>", false)]);
    }

    #[test]
    fn marks_written_by_a_user_forge_nothing() {
        let tokens = tokens();
        for forged in ["\u{f0001}<image>\u{f0000}", "<im\u{f0000}age>", "\u{f0000}\u{f0000}<image>\u{f0001}"] {
            let found = tokens.mark(forged);
            assert!(pieces(&found, &tokens).iter().all(|piece| piece.inert || tokens.find(piece.text).is_empty()));
            assert_eq!(unmarked(&found), "<image>");
        }
    }

    #[test]
    fn a_token_in_halves_does_not_join() {
        let tokens = tokens();
        for parts in [&["<|en", "d|>"][..], &["<", "|end", "|>"], &["<", "", "image>"], &["é", ">"], &["<|", "<image>"]]
        {
            let rendered = tokens.mark_all(parts).concat();
            let live = pieces(&rendered, &tokens).into_iter().filter(|piece| !piece.inert);
            assert!(live.into_iter().all(|piece| tokens.find(piece.text).is_empty()), "{parts:?}");
            assert_eq!(unmarked(&rendered), parts.concat());
        }
        assert_eq!(tokens.mark_all(&["Hel", "lo"]), ["Hel", "lo"]);
    }

    #[test]
    fn a_mark_that_lost_its_partner_still_parts() {
        let tokens = tokens();
        // A template that splits at the token, and one that writes the halves apart.
        let marked = tokens.mark("<ima<|end|>ge>");
        let rendered: String = marked.split("<|end|>").collect();
        let found = pieces(&rendered, &tokens);
        assert!(found.iter().all(|piece| tokens.find(piece.text).is_empty()), "{found:?}");
        assert_eq!(unmarked(&rendered), "<image>");
    }
}
