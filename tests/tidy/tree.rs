//! The files that the rules look at.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Paths, relative to the root and with `/`, and texts. Files that are not text are there with an empty one.
pub(crate) struct Tree(BTreeMap<String, String>);

/// What a build or a run makes, and git's own.
const SKIPPED: [&str; 3] = [".git", ".turret", "target"];

impl Tree {
    /// This repository as it lies, committed or not.
    pub(crate) fn of_repository() -> Self {
        let mut files = BTreeMap::new();
        read(Path::new(env!("CARGO_MANIFEST_DIR")), "", &mut files);
        assert!(files.contains_key("Cargo.toml"), "the root was not found");
        Self(files)
    }

    /// A tree made up for a test.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
    }

    /// Every file, by path.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// The files whose name ends with `ending`.
    pub(crate) fn ending(&self, ending: &str) -> impl Iterator<Item = (&str, &str)> {
        self.files().filter(move |(path, _)| path.ends_with(ending))
    }

    /// The text of one file, where it is there.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.0.get(path).map(String::as_str)
    }

    /// Whether there is a file, or a directory with files, at `path`.
    pub(crate) fn has(&self, path: &str) -> bool {
        let below = format!("{path}/");
        path.is_empty() || self.0.contains_key(path) || self.0.keys().any(|file| file.starts_with(&below))
    }
}

fn read(dir: &Path, prefix: &str, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).expect("the directory was listed by its parent") {
        let entry = entry.expect("a directory can be read to its end");
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
        // Links are not followed, so that a circle of them cannot be walked for ever.
        let kind = entry.file_type().expect("an entry has a kind");
        if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
            read(&entry.path(), &path, files);
        } else if kind.is_file() {
            // Somebody's editor may have taken a file away meanwhile.
            files.insert(path, fs::read_to_string(entry.path()).unwrap_or_default());
        }
    }
}
