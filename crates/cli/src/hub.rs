//! Models by their id on the Hugging Face hub, `owner/name`, where its cache on this machine has them. Nothing is fetched.
//!
//! ```text
//! CACHE/models--owner--name/refs/main ─ commit ─► CACHE/models--owner--name/snapshots/COMMIT/
//! ```

use crate::failure::Failure;
use std::path::{Path, PathBuf};

/// The folder of a model: `given` itself, unless there is none of this name and it reads as an id; then its snapshot.
///
/// # Errors
/// For an id whose snapshot is not in the cache, or not as a whole.
pub fn folder(given: &Path) -> Result<PathBuf, Failure> {
    match id_of(given) {
        Some(id) => in_cache(id, cache().as_deref()),
        None => Ok(given.to_owned()),
    }
}

/// The id that `given` is read as, where there is no folder of that name.
pub fn id_of(given: &Path) -> Option<&str> {
    id(given).filter(|_| !given.exists())
}

/// `owner/name` in letters, digits and `-_.`, neither beginning with a dot.
fn id(given: &Path) -> Option<&str> {
    let text = given.to_str()?;
    let (owner, name) = text.split_once('/')?;
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    (is_part(owner) && is_part(name)).then_some(text)
}

/// Where the hub's own programs keep what they fetch; the variables and their order are theirs.
fn cache() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("HF_HUB_CACHE")
        .or_else(|| set("HF_HOME").map(|home| home.join("hub")))
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("huggingface/hub")))
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache/huggingface/hub")))
}

fn in_cache(id: &str, cache: Option<&Path>) -> Result<PathBuf, Failure> {
    let hint = format!(
        "`hf download {id}` on a machine with a network puts it there; or pass the path of a folder that holds it, or of the \
         folder `model` of a finished run"
    );
    let failure = |looked: String, got: String| {
        Failure::new(format!("there is no model `{id}`"))
            .part("expected", "a model folder, or a model in the Hugging Face cache (HF_HUB_CACHE, HF_HOME)")
            .part("looked", looked)
            .part("got", got)
            .hint(&hint)
    };
    let Some(cache) = cache else {
        return Err(failure(format!("./{id}"), "no cache: none of its variables is set, and no home folder".into()));
    };
    let model = cache.join(format!("models--{}", id.replace('/', "--")));
    let looked = |place: &Path| format!("./{id}, {}", place.display());
    let reference = model.join("refs/main");
    let Ok(commit) = std::fs::read_to_string(&reference) else {
        return Err(failure(looked(&reference), "no such folder, no such file".into()));
    };
    let commit = commit.trim();
    // A reference with a path in it would leave the cache.
    if commit.is_empty() || !commit.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err(failure(looked(&reference), format!("`{commit}`, which is not the name of a commit")));
    }
    let snapshot = model.join("snapshots").join(commit);
    match missing(&snapshot) {
        None => Ok(snapshot),
        Some(file) => Err(failure(looked(&snapshot), format!("a snapshot without {file}"))),
    }
}

/// A file that a model cannot be loaded without and that the snapshot lacks. Whether those that are there can be read is
/// for the loader to say; links of a fetch that was cut short lead nowhere, and count as missing.
fn missing(snapshot: &Path) -> Option<String> {
    let lacks = |name: &str| !snapshot.join(name).is_file();
    if lacks("config.json") {
        return Some("config.json".into());
    }
    if !lacks("model.safetensors") {
        return None;
    }
    let index = std::fs::read(snapshot.join("model.safetensors.index.json")).unwrap_or_default();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap_or_default();
    let Some(map) = index["weight_map"].as_object() else {
        return Some("model.safetensors".into());
    };
    map.values().filter_map(|shard| shard.as_str()).find(|shard| lacks(shard)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_owner_and_name_are_an_id() {
        let is_id = |text: &str| id(Path::new(text)).is_some();
        assert!(is_id("Qwen/Qwen2.5-VL-3B-Instruct"));
        assert!(!["model", "./model", "../model", "/a/b", "a/b/c", "a/", "~/model", "a/b c"].into_iter().any(is_id));
    }
}
