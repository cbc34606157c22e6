//! The rules about the manifests: who may import whom, and how releases are built.

use toml::{Table, Value};

use crate::tree::Tree;

/// Our packages, and which of ours each may import.
const MAY_IMPORT: [(&str, &str, &[&str]); 8] = [
    ("crates/retrieval/Cargo.toml", "turret-retrieval", &[]),
    ("crates/data/Cargo.toml", "turret-data", &["turret-retrieval"]),
    ("crates/model/Cargo.toml", "turret-model", &["turret-retrieval"]),
    ("crates/index/Cargo.toml", "turret-index", &["turret-retrieval"]),
    ("crates/store/Cargo.toml", "turret-store", &["turret-retrieval"]),
    ("fuzz/Cargo.toml", "turret-fuzz", &["turret-index", "turret-retrieval"]),
    (
        "actors/Cargo.toml",
        "turret-actors",
        &["turret-data", "turret-index", "turret-model", "turret-retrieval", "turret-store"],
    ),
    (
        "Cargo.toml",
        "turret",
        &["turret-actors", "turret-data", "turret-index", "turret-model", "turret-retrieval", "turret-store"],
    ),
];

/// Dependencies that have doors: the beginning of their names, and the packages that may import them.
const DOORS: [(&str, &[&str]); 24] = [
    ("anyhow", &["turret"]),
    ("arrow", &["turret-data"]),
    ("async-", &[]),
    ("axum", &["turret"]),
    ("candle", &["turret-model"]),
    ("clap", &["turret"]),
    ("diskann", &["turret-index"]),
    ("futures", &["turret-actors", "turret"]),
    ("gemm", &["turret-model"]),
    ("hyper", &["turret"]),
    // The index measures its memory in a benchmark, which must have the program's allocator.
    ("mimalloc", &["turret", "turret-index"]),
    ("object_store", &["turret-actors"]),
    ("parquet", &["turret-data"]),
    ("prometheus", &["turret-actors", "turret"]),
    ("ractor", &["turret-actors"]),
    ("reqwest", &["turret"]),
    ("safetensors", &["turret-model"]),
    ("sled", &["turret-store"]),
    ("smartcore", &["turret"]),
    ("tokio", &["turret-actors", "turret"]),
    ("toml", &["turret"]),
    ("tonic", &["turret"]),
    ("tower", &["turret"]),
    ("tracing", &["turret-actors", "turret"]),
];

/// The domain cannot see the actors, siblings cannot see each other, nobody sees the program, and each heavy dependency
/// is imported through its one door. Development dependencies count: they make two copies of a crate.
pub(crate) fn doors(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, text) in tree.files().filter(|(path, _)| *path == "Cargo.toml" || path.ends_with("/Cargo.toml")) {
        let Some((_, package, may)) = MAY_IMPORT.iter().find(|(manifest, _, _)| *manifest == path) else {
            faults.push(format!("{path}: a package that ARCHITECTURE.md and tests/tidy/manifests.rs do not know"));
            continue;
        };
        let manifest: Table = match text.parse() {
            Ok(manifest) => manifest,
            Err(error) => {
                faults.push(format!("{path}: {error}"));
                continue;
            }
        };
        if text_at(&manifest, &["package", "name"]) != Some(package) {
            faults.push(format!("{path}: the package must be called {package}"));
        }
        for name in dependencies(&manifest) {
            let ours = name == "turret" || name.starts_with("turret-");
            let door = DOORS.iter().find(|(start, _)| name.starts_with(start));
            if ours && !may.contains(&name.as_str()) {
                faults.push(format!("{path}: {package} must not import {name}"));
            }
            if let Some((_, packages)) = door.filter(|(_, packages)| !packages.contains(package)) {
                let doors = if packages.is_empty() { "nobody".to_owned() } else { packages.join(" and ") };
                faults.push(format!("{path}: {package} must not import {name}; {doors} may"));
            }
        }
    }
    faults
}

/// Releases unwind: ractor supervises by catching panics.
pub(crate) fn unwinding(tree: &Tree) -> Vec<String> {
    let manifest: Option<Table> = tree.text("Cargo.toml").and_then(|text| text.parse().ok());
    match manifest.as_ref().and_then(|manifest| text_at(manifest, &["profile", "release", "panic"])) {
        Some("unwind") => Vec::new(),
        Some(_) | None => vec!["Cargo.toml: profile.release must say panic = \"unwind\"".to_owned()],
    }
}

/// The packages that a manifest imports, under their own names, for whatever purpose and target.
fn dependencies(manifest: &Table) -> Vec<String> {
    let targets = manifest.get("target").and_then(Value::as_table);
    let per_target = targets.into_iter().flat_map(Table::values).filter_map(Value::as_table);
    let mut names = Vec::new();
    for owner in std::iter::once(manifest).chain(per_target) {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (key, value) in owner.get(kind).and_then(Value::as_table).into_iter().flatten() {
                // A renamed dependency is still what it is.
                names.push(value.get("package").and_then(Value::as_str).unwrap_or(key).to_owned());
            }
        }
    }
    names
}

fn text_at<'a>(table: &'a Table, path: &[&str]) -> Option<&'a str> {
    let (last, parents) = path.split_last()?;
    let mut table = table;
    for parent in parents {
        table = table.get(*parent)?.as_table()?;
    }
    table.get(*last)?.as_str()
}
