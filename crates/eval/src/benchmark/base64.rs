//! Pictures as text.

use super::python;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What a cell with pictures as text holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Texts {
    /// One: the text itself, or a Python list of one.
    One(String),
    /// A Python list of several, or of none.
    Many(usize),
}

/// Takes a cell apart, as VLMEvalKit's `toliststr` does.
///
/// # Errors
/// Where it begins and ends as a Python list and is none.
pub(super) fn texts(cell: &str) -> Result<Texts, String> {
    let cell = cell.trim();
    if !(cell.starts_with('[') && cell.ends_with(']')) {
        return Ok(Texts::One(cell.to_owned()));
    }
    let mut all = python::list(cell)?;
    Ok(match (all.pop(), all.len()) {
        (Some(one), 0) => Texts::One(one),
        (Some(_), others) => Texts::Many(others + 1),
        (None, _) => Texts::Many(0),
    })
}

/// The bytes of one picture.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, String> {
    // Python's encoders break lines on request.
    let packed: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    STANDARD.decode(packed).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_one_is_that_one_and_lists_of_more_are_counted() {
        assert_eq!(texts("abc"), Ok(Texts::One("abc".into())));
        assert_eq!(texts(" ['abc'] "), Ok(Texts::One("abc".into())));
        assert_eq!(texts("['abc', \"def\", 'g']"), Ok(Texts::Many(3)));
        assert_eq!(texts("[]"), Ok(Texts::Many(0)));
        assert!(texts("['abc]").is_err());
    }

    #[test]
    fn broken_lines_are_decoded_and_other_signs_are_refused() {
        assert_eq!(decode("aGVs\nbG8="), Ok(b"hello".to_vec()));
        assert!(decode("aGVs!G8=").is_err());
        assert!(decode("aGVsbG8").is_err(), "cut short");
    }
}
