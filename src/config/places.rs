//! Directories and depots, where a leading `$NAME/` is the environment variable.

use std::path::{Path, PathBuf};

use turret_actors::depot::Place;

use super::reader::Section;

/// A directory.
pub(super) fn directory(section: &Section<'_>, key: &'static str, default: &Path) -> PathBuf {
    expanded(section, key).unwrap_or_else(|| default.to_owned())
}

/// A directory of generations, or the URL of an object store that holds them.
pub(super) fn depot(section: &Section<'_>, key: &'static str, default: &Path) -> Place {
    let place = expanded(section, key).map(|path| match path.to_str() {
        Some(text) => Place::parse(text).unwrap_or_else(|rule| {
            section.fault(key, rule);
            Place::Directory(path)
        }),
        None => Place::Directory(path),
    });
    place.unwrap_or_else(|| Place::Directory(default.to_owned()))
}

fn expanded(section: &Section<'_>, key: &'static str) -> Option<PathBuf> {
    let path = expand(section.text(key)?).map_err(|rule| section.fault(key, rule));
    path.ok()
}

/// `text` with the variable in front replaced by its value.
///
/// # Errors
/// When it is not set.
pub(super) fn expand(text: &str) -> Result<PathBuf, String> {
    let Some(rest) = text.strip_prefix('$') else { return Ok(PathBuf::from(text)) };
    let (name, below) = rest.split_once('/').unwrap_or((rest, ""));
    match std::env::var(name) {
        Ok(value) if !value.is_empty() && below.is_empty() => Ok(PathBuf::from(value)),
        Ok(value) if !value.is_empty() => Ok(Path::new(&value).join(below)),
        Ok(_) | Err(_) => Err(format!("the environment variable {name} is not set")),
    }
}
