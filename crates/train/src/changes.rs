//! What differs between two run configs, key by key.

use std::collections::BTreeSet;
use toml::{Table, Value};

/// Differences that are listed; a config of another kind differs in everything.
const MOST: usize = 12;

/// Lines such as `optimizer.beta2: 0.98 -> 0.9`. Of the stages only the first `stages` are compared.
///
/// # Errors
/// Where a text is no TOML.
pub fn between(old: &str, new: &str, stages: usize) -> Result<Vec<String>, toml::de::Error> {
    let read = |text: &str| {
        let mut table: Table = toml::from_str(text)?;
        if let Some(Value::Array(all)) = table.get_mut("stages") {
            all.truncate(stages);
        }
        Ok(Value::Table(table))
    };
    let (old, new) = (read(old)?, read(new)?);
    let mut lines = Vec::new();
    compare("", Some(&old), Some(&new), &mut lines);
    if lines.len() > MOST {
        let more = lines.len() - MOST;
        lines.truncate(MOST);
        lines.push(format!("and {more} more"));
    }
    Ok(lines)
}

fn compare(path: &str, old: Option<&Value>, new: Option<&Value>, lines: &mut Vec<String>) {
    match (old, new) {
        (Some(Value::Table(old)), Some(Value::Table(new))) => {
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(&path, old.get(key), new.get(key), lines);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) if old.iter().chain(new).any(Value::is_table) => {
            for i in 0..old.len().max(new.len()) {
                compare(&format!("{path}[{i}]"), old.get(i), new.get(i), lines);
            }
        }
        (old, new) if old != new => lines.push(format!("{path}: {} -> {}", shown(old), shown(new))),
        _ => {}
    }
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None => "nothing".to_owned(),
        Some(Value::Table(_)) => "a table".to_owned(),
        Some(value) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_differ_are_named_with_both_values() {
        let old = "seed = 1\n[optimizer]\nbeta2 = 0.98\n[[stages]]\nsteps = 3\ntrain = [\"a\"]\n";
        let new =
            "seed = 1\nname = \"x\"\n[optimizer]\nbeta2 = 0.9\n[[stages]]\nsteps = 3\ntrain = [\"b\"]\n[[stages]]\n";
        let lines = between(old, new, 2).unwrap();
        let expected = [
            "name: nothing -> \"x\"",
            "optimizer.beta2: 0.98 -> 0.9",
            "stages[0].train: [\"a\"] -> [\"b\"]",
            "stages[1]: nothing -> a table",
        ];
        assert_eq!(lines, expected);
        assert_eq!(between(old, new, 1).unwrap(), expected[..3], "the second stage has not begun");
        assert!(between(old, old, 2).unwrap().is_empty());
        assert!(between("=", new, 2).is_err());
    }
}
