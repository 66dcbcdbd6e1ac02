//! Who may know whom, as drawn in ARCHITECTURE.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fs,
    path::Path,
    process::Command,
};

use serde::Deserialize;

use crate::violation::Violation;

/// The allowed edges. An edge that is not here is a decision to be made in ARCHITECTURE.md first.
const MAY_KNOW: [(&str, &[&str]); 9] = [
    ("cli", &["model", "data", "infer", "train", "trace", "eval", "server"]),
    ("server", &["infer"]),
    ("eval", &["infer", "data", "trace"]),
    ("infer", &["model", "data", "trace"]),
    ("train", &["model", "data", "kernels"]),
    ("model", &["kernels"]),
    ("kernels", &[]),
    ("data", &[]),
    ("trace", &[]),
];
/// Crates that may name the tensor library in their manifest.
const TENSORS: [&str; 4] = ["kernels", "model", "infer", "train"];
/// Crates in whose whole tree of dependencies it may not appear.
const WITHOUT_TENSORS: [&str; 2] = ["trace", "data"];

/// The part of `cargo metadata` that is used.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `None` for ordinary dependencies, else `dev` or `build`.
    kind: Option<String>,
}

/// The part of `Cargo.lock` that is used.
#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    #[serde(default)]
    dependencies: Vec<String>,
}

/// Asks cargo for the manifests and the lock file for the trees.
pub fn check(root: &Path) -> Result<Vec<Violation>, Box<dyn Error>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["metadata", "--no-deps", "--offline", "--format-version", "1"];
    let output = Command::new(cargo).args(arguments).current_dir(root).output()?;
    if !output.status.success() {
        return Err(format!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout)?;
    let lock: Lock = toml::from_str(&fs::read_to_string(root.join("Cargo.lock"))?)?;
    let mut found: Vec<Violation> = metadata.packages.iter().flat_map(edges).collect();
    found.extend(WITHOUT_TENSORS.iter().filter_map(|name| tensors_in_tree(&lock, name)));
    Ok(found)
}

/// Edges of one crate that are not allowed. Tests may know more than what is shipped.
fn edges(package: &Package) -> Vec<Violation> {
    let Some(name) = package.name.strip_prefix("lare-") else {
        return vec![];
    };
    let Some((_, allowed)) = MAY_KNOW.iter().find(|(known, _)| *known == name) else {
        let way_out = "decide in ARCHITECTURE.md whom it may know, then add it to xtask/src/rules/graph.rs";
        return vec![violation(name, "an unknown crate", "a crate of ARCHITECTURE.md".to_owned(), way_out)];
    };
    let shipped = package.dependencies.iter().filter(|one| one.kind.as_deref() != Some("dev"));
    shipped
        .filter_map(|dependency| {
            if let Some(known) = dependency.name.strip_prefix("lare-") {
                let way_out = "turn the edge round, pass a callback, or change ARCHITECTURE.md first";
                return (!allowed.contains(&known)).then(|| violation(name, known, list(allowed), way_out));
            }
            let tensors = dependency.name.starts_with("candle") && !TENSORS.contains(&name);
            let way_out = "take plain slices, or move the code to a crate that knows tensors";
            tensors.then(|| violation(name, &dependency.name, "no tensor library".to_owned(), way_out))
        })
        .collect()
}

/// Whether the tensor library is anywhere below a crate, development dependencies included.
fn tensors_in_tree(lock: &Lock, name: &str) -> Option<Violation> {
    let below: BTreeMap<&str, &[String]> =
        lock.package.iter().map(|one| (one.name.as_str(), one.dependencies.as_slice())).collect();
    let root = format!("lare-{name}");
    let (mut seen, mut open) = (BTreeSet::new(), vec![root.as_str()]);
    while let Some(package) = open.pop() {
        if seen.insert(package) {
            // An entry is a name, or a name and a version where there are several.
            let names = below.get(package).copied().unwrap_or_default().iter();
            open.extend(names.filter_map(|entry| entry.split(' ').next()));
        }
    }
    let way_out = "find the way in with cargo tree --invert, and cut it";
    let linked = seen.into_iter().find(|package| package.starts_with("candle"))?;
    Some(violation(name, linked, "no tensor library in its tree".to_owned(), way_out))
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "none of ours".to_owned() } else { names.join(", ") }
}

fn violation(name: &str, got: &str, limit: String, way_out: &'static str) -> Violation {
    Violation {
        path: format!("crates/{name}/Cargo.toml"),
        line: 1,
        rule: "crate-graph",
        name: Some(name.to_owned()),
        what: format!("dependency of {name}"),
        got: got.to_owned(),
        limit,
        way_out,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependency: &str, kind: Option<&str>) -> Package {
        let dependency = Dependency { name: dependency.to_owned(), kind: kind.map(str::to_owned) };
        Package { name: name.to_owned(), dependencies: vec![dependency] }
    }

    #[test]
    fn an_edge_that_is_not_drawn_is_found() {
        for (from, to, allowed) in [
            ("lare-train", "lare-infer", false),
            ("lare-model", "lare-data", false),
            ("lare-trace", "lare-model", false),
            ("lare-trace", "candle-core", false),
            ("lare-server", "candle-core", false),
            ("lare-cli", "lare-kernels", false),
            ("lare-cli", "lare-train", true),
            ("lare-infer", "lare-trace", true),
            ("lare-model", "candle-core", true),
            ("lare-data", "image", true),
            ("xtask", "syn", true),
        ] {
            assert_eq!(edges(&package(from, to, None)).is_empty(), allowed, "{from} -> {to}");
        }
    }

    #[test]
    fn tests_may_know_more() {
        assert!(edges(&package("lare-kernels", "lare-model", Some("dev"))).is_empty());
        assert!(!edges(&package("lare-kernels", "lare-model", Some("build"))).is_empty());
    }

    #[test]
    fn a_crate_that_nobody_drew_is_found() {
        assert_eq!(edges(&package("lare-utils", "serde", None)).len(), 1);
    }

    #[test]
    fn the_tensor_library_is_found_however_deep() {
        let lock = |last: &str| -> Lock {
            let entry =
                |name: &str, below: &str| Locked { name: name.to_owned(), dependencies: vec![below.to_owned()] };
            Lock { package: vec![entry("lare-trace", "image 0.25.1"), entry("image", last)] }
        };
        assert!(tensors_in_tree(&lock("candle-core"), "trace").is_some());
        assert!(tensors_in_tree(&lock("png"), "trace").is_none());
    }
}
