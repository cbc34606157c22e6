//! The rules about the configuration: every key is described, and every committed file is sound.

use std::collections::BTreeSet;
use std::process::Command;

use crate::rust_source::RustSource;
use crate::tree::Tree;

/// Where the keys are described.
const DESCRIPTIONS: [&str; 2] = ["cluster-config/README.md", "cluster-config/production.example.toml"];

/// Keys that the one file with everything cannot show: they are the other way of saying what it says.
const ALTERNATIVES: [&str; 1] = ["cookie"];

/// How the configuration asks for a key; the key follows.
const READERS: [&str; 13] = [
    ".value(",
    ".section(",
    ".sections(",
    ".integer(",
    ".size(",
    ".number(",
    ".flag(",
    ".text(",
    ".required_text(",
    ".choice(",
    ".list(",
    " weight(",
    " share(",
];

/// Every key that `src/config` reads stands in the table and in the example, as a word of its own.
pub(crate) fn described(tree: &Tree) -> Vec<String> {
    let sources = tree.ending(".rs").filter(|(path, _)| *path == "src/config.rs" || path.starts_with("src/config/"));
    let mut keys = BTreeSet::new();
    for (_, text) in sources.filter(|(path, _)| !path.contains("tests")) {
        let source = RustSource::new(text);
        let asked = READERS.into_iter().flat_map(|reader| source.first_texts(reader));
        keys.extend(asked.map(|argument| argument.text.to_owned()));
    }
    let mut faults = Vec::new();
    if keys.is_empty() {
        faults.push("src/config.rs: no key was found; the rule does not know how they are read now".to_owned());
    }
    for path in DESCRIPTIONS {
        let words: BTreeSet<&str> = tree.text(path).map(words).into_iter().flatten().collect();
        let is_missing = |key: &&String| !words.contains(key.as_str()) && !ALTERNATIVES.contains(&key.as_str());
        faults.extend(keys.iter().filter(is_missing).map(|key| format!("{path}: the key {key} is not described")));
    }
    faults
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
}

/// Every file of `cluster-config/` passes `turret config check`.
///
/// In a process of its own for each, because what a file takes from the environment must be set there.
pub(crate) fn sound(tree: &Tree) -> Vec<String> {
    let elsewhere = tempfile::tempdir().expect("a temporary directory can be made");
    let cookie = elsewhere.path().join("turret-cookie");
    std::fs::write(&cookie, "0123456789abcdef0123456789abcdef\n").expect("a temporary file can be written");
    let mut faults = Vec::new();
    for (path, text) in tree.ending(".toml").filter(|(path, _)| path.starts_with("cluster-config/")) {
        let copy = elsewhere.path().join("config.toml");
        std::fs::write(&copy, text).expect("a temporary file can be written");
        let checked = Command::new(env!("CARGO_BIN_EXE_turret"))
            .args(["config", "check"])
            .arg(&copy)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("TURRET_DATA", elsewhere.path())
            .env("CREDENTIALS_DIRECTORY", elsewhere.path())
            .output()
            .expect("the program was built for this test");
        if !checked.status.success() {
            faults.push(format!("{path}: is refused: {}", String::from_utf8_lossy(&checked.stderr).trim()));
        }
    }
    faults
}
