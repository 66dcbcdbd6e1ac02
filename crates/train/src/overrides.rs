//! Fields of a run config set from outside its file, so that runs that differ in a field need no file each.
//!
//! | place | |
//! |---|---|
//! | `seed` | a field |
//! | `model.refocus.thinking` | one inside tables |
//! | `stages[2].steps` | of one stage, counted from 0 |
//! | `stages[chains].steps` | of the stages of that name |
//! | `stages[*].loss.focus` | of all stages |

use crate::{Error, Result};
use toml::{Table, Value};

/// The text of a config with fields set, in order, by assignments such as `model.refocus.gate=false`. A value is written as
/// in TOML; a word needs no quotes. `file` names the config in errors. Whether a field exists and fits is for
/// [`crate::config::Config::from_toml`] to say.
///
/// # Errors
/// [`Error::ConfigSyntax`] for a text that is no TOML, [`Error::Config`] for an assignment that is none, or a place
/// that the config does not have.
pub fn with(text: &str, assignments: &[String], file: &str) -> Result<String> {
    if assignments.is_empty() {
        return Ok(text.to_owned());
    }
    let syntax = |reason: String| Error::ConfigSyntax { file: file.into(), reason };
    let mut config = Value::Table(toml::from_str(text).map_err(|e| syntax(e.to_string()))?);
    for assignment in assignments {
        let fail = |expected: String, got: &str| {
            Err(Error::Config { file: file.into(), field: assignment.clone(), expected, got: got.into() })
        };
        let Some((place, value)) = assignment.split_once('=') else {
            return fail("KEY=VALUE".into(), assignment);
        };
        let path: Vec<&str> = place.trim().split('.').collect();
        if let Err(Missing { key, there }) = set(&mut config, &path, &value_of(value.trim())) {
            return fail(format!("one of {there}"), key);
        }
    }
    toml::to_string(&config).map_err(|e| syntax(e.to_string()))
}

/// A place that is not there, and what is.
struct Missing<'a> {
    key: &'a str,
    there: String,
}

/// As TOML reads it; what it does not read is a word.
fn value_of(text: &str) -> Value {
    let read = toml::from_str::<Table>(&format!("value = {text}"));
    // More than one line could bring in more than one key.
    let read = read.ok().filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
    read.unwrap_or_else(|| Value::String(text.to_owned()))
}

fn set<'a>(inside: &mut Value, path: &[&'a str], value: &Value) -> std::result::Result<(), Missing<'a>> {
    let Some((first, rest)) = path.split_first() else {
        *inside = value.clone();
        return Ok(());
    };
    let (key, which) = match first.strip_suffix(']').and_then(|part| part.split_once('[')) {
        Some((key, which)) => (key, Some(which)),
        None => (*first, None),
    };
    let Some(table) = inside.as_table_mut() else {
        return Err(Missing { key: first, there: "no fields: it is a value".into() });
    };
    let keys: Vec<String> = table.keys().cloned().collect();
    let missing = || Missing { key: first, there: keys.join(", ") };
    let next = match rest.is_empty() && which.is_none() {
        // A field that has a default need not stand in the file.
        true => table.entry(key).or_insert_with(|| value.clone()),
        false => table.get_mut(key).ok_or_else(missing)?,
    };
    match (which, next) {
        (None, next) => set(next, rest, value),
        (Some(which), Value::Array(all)) => {
            let name = |(place, one): (usize, &Value)| match one.get("name").and_then(Value::as_str) {
                Some(name) => name.to_owned(),
                None => place.to_string(),
            };
            let names: Vec<String> = all.iter().enumerate().map(name).collect();
            let is_meant = |place: usize| which == "*" || which == names[place] || which == place.to_string();
            let mut meant = all.iter_mut().enumerate().filter(|(place, _)| is_meant(*place)).peekable();
            if meant.peek().is_none() {
                return Err(Missing { key: first, there: names.join(", ") });
            }
            meant.try_for_each(|(_, one)| set(one, rest, value))
        }
        (Some(_), _) => Err(Missing { key: first, there: format!("{key} alone: it is no list") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "seed = 1\n[model]\nname = \"a\"\n[[stages]]\nname = \"one\"\nsteps = 1\n[[stages]]\nname = \"two words\"\nsteps = 2\n";

    fn set(assignments: &[&str]) -> Result<Table> {
        let assignments: Vec<String> = assignments.iter().map(|a| (*a).to_owned()).collect();
        Ok(toml::from_str(&with(TEXT, &assignments, "x.toml")?).unwrap())
    }

    #[test]
    fn fields_are_set_wherever_they_are() {
        let table = set(&["seed=2", "model.name = b", "stages[0].steps=5", "stages[two words].steps=[6, 7]"]).unwrap();
        let stages = table["stages"].as_array().unwrap();
        assert_eq!((table["seed"].as_integer(), table["model"]["name"].as_str()), (Some(2), Some("b")));
        assert_eq!((stages[0]["steps"].as_integer(), stages[1]["steps"].as_array().unwrap().len()), (Some(5), 2));
        let all = set(&["stages[*].new=\"1\"", "model.deep={ a = true }", "model.deep.a=false"]).unwrap();
        assert!(all["stages"].as_array().unwrap().iter().all(|stage| stage["new"].as_str() == Some("1")));
        assert_eq!(all["model"]["deep"]["a"].as_bool(), Some(false));
    }

    #[test]
    fn a_text_is_as_it_was_where_nothing_is_set() {
        assert_eq!(with(TEXT, &[], "x.toml").unwrap(), TEXT);
    }

    #[test]
    fn what_is_not_there_is_refused_with_what_is() {
        for (assignment, parts) in [
            ("seed", &["`seed`", "KEY=VALUE"][..]),
            ("modle.name=b", &["model, seed, stages", "modle"]),
            ("stages[three].steps=1", &["one, two words", "stages[three]"]),
            ("model[0].name=b", &["model alone"]),
            ("seed.x=1", &["no fields", "x"]),
        ] {
            let message = set(&[assignment]).unwrap_err().to_string();
            assert!(parts.iter().all(|part| message.contains(part)) && message.contains("x.toml"), "{message}");
        }
    }

    #[test]
    fn a_value_cannot_bring_in_another_key() {
        assert_eq!(value_of("1\nother = 2"), Value::String("1\nother = 2".into()));
    }
}
