//! Where a user is found after an erasure. Blocks.

use std::fs::DirEntry;
use std::io;
use std::path::Path;

use turret_retrieval::hashing::partition_of;
use turret_retrieval::ids::UserId;
use turret_store::snapshot_holds;

use crate::generation::{GenerationError, Published, published_in, users_file};
use crate::protocol::{Trace, Traces};

/// Of places where nobody can look, so many are named.
const NAMED_MAX: usize = 8;

/// What of the generations that lie beside that in `dir` has `user`: their users' files, each of as many partitions as it has.
pub(super) fn of(user: &UserId, dir: &Path, is_elsewhere: bool) -> Result<Traces, GenerationError> {
    let Published { generations, unreadable } = published_in(dir)?;
    let mut found = Vec::new();
    let mut unknown: Vec<String> = unreadable.iter().filter(|path| has_users(path)).map(named).collect();
    for generation in generations {
        let manifest = &generation.manifest;
        let path = generation.dir.join(users_file(partition_of(user, manifest.partitions())));
        let holds = match path.try_exists() {
            Ok(false) => Some(false),
            Ok(true) => snapshot_holds(&path, user).ok(),
            Err(_) => None,
        };
        match holds {
            Some(true) => {
                found.push(Trace { generation: manifest.id.clone(), published_at_ms: manifest.created_at_ms })
            }
            Some(false) => {}
            None => unknown.push(named(&generation.dir)),
        }
    }
    Ok(Traces { found, unknown: told(&unknown, is_elsewhere) })
}

/// Whether users' files lie in what may have been a generation, or nobody can tell.
fn has_users(dir: &Path) -> bool {
    let is_one = |entry: io::Result<DirEntry>| {
        entry.map_or(true, |entry| entry.path().extension().is_some_and(|extension| extension == "users"))
    };
    match std::fs::read_dir(dir.join("users")) {
        Ok(mut entries) => entries.any(is_one),
        Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
    }
}

fn named(path: impl AsRef<Path>) -> String {
    path.as_ref().file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn told(unknown: &[String], is_elsewhere: bool) -> Option<String> {
    let mut told = Vec::new();
    if !unknown.is_empty() {
        let more = unknown.len().saturating_sub(NAMED_MAX);
        let names = unknown[..unknown.len() - more].join(", ");
        let others = if more > 0 { format!(" and {more} more") } else { String::new() };
        told.push(format!("the users' files of {names}{others} cannot be read"));
    }
    if is_elsewhere {
        told.push("of generations in the object store only those with a copy on the node were looked at".to_owned());
    }
    (!told.is_empty()).then(|| told.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_could_look_at_is_told_with_a_bound() {
        assert_eq!(told(&[], false), None);
        let names: Vec<String> = (0..NAMED_MAX + 2).map(|at| format!("g{at}")).collect();
        let text = told(&names, true).unwrap();
        assert!(text.contains("g0, g1") && text.contains("g7 and 2 more") && !text.contains("g8"), "{text}");
        assert!(text.ends_with("only those with a copy on the node were looked at"), "{text}");
    }
}
