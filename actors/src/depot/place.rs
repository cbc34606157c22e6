//! The name of a depot, as the configuration writes it.

use std::fmt;
use std::path::{Path, PathBuf};

use url::Url;

/// Where generations are published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A directory of this machine: nodes read the files where they lie.
    Directory(PathBuf),
    /// An object store: nodes copy the files from it before they start.
    Store(StoreUrl),
}

/// The address of an object store and a prefix in it: `s3://bucket/prefix`, `gs://bucket/prefix`,
/// `az://container/prefix` or `file:///directory`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreUrl {
    pub(super) kind: StoreKind,
    pub(super) url: Url,
}

/// Which protocol an object store speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoreKind {
    Azure,
    Files,
    Google,
    S3,
}

/// Why a text is not the name of a depot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// Not a URL at all.
    #[error("`{text}` is not a URL: {why}")]
    Malformed {
        /// What was written.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A URL of something else.
    #[error("`{text}` is neither a directory nor s3://, gs://, az:// or file:///")]
    Scheme {
        /// What was written.
        text: String,
    },
    /// No bucket or container; or a host, where a file has none.
    #[error("`{text}` {rule}")]
    Host {
        /// What was written.
        text: String,
        /// What it must be.
        rule: &'static str,
    },
    /// The text is not repeated, for it may hold a secret.
    #[error("must hold no user, password, query or fragment: credentials come from the environment")]
    Credentials,
}

impl Place {
    /// The directory, where it is one.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory(dir) => Some(dir),
            Self::Store(_) => None,
        }
    }

    /// Reads a URL where there is a `://`, and a directory otherwise.
    ///
    /// # Errors
    /// When it is a URL of no object store that can be reached.
    pub fn parse(text: &str) -> Result<Self, PlaceError> {
        if !text.contains("://") {
            return Ok(Self::Directory(PathBuf::from(text)));
        }
        let url = Url::parse(text)
            .map_err(|error| PlaceError::Malformed { text: text.to_owned(), why: error.to_string() })?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(PlaceError::Credentials);
        }
        let kind = match url.scheme() {
            "az" => StoreKind::Azure,
            "file" => StoreKind::Files,
            "gs" => StoreKind::Google,
            "s3" => StoreKind::S3,
            _ => return Err(PlaceError::Scheme { text: text.to_owned() }),
        };
        let host = |rule| PlaceError::Host { text: text.to_owned(), rule };
        match (kind, url.host_str().filter(|host| !host.is_empty())) {
            (StoreKind::Files, Some(_)) => Err(host("names a host: file:/// has three slashes")),
            (StoreKind::Azure | StoreKind::Google | StoreKind::S3, None) => Err(host("names no bucket")),
            (StoreKind::Files, None) | (_, Some(_)) => Ok(Self::Store(StoreUrl { kind, url })),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(dir) => dir.display().fmt(f),
            Self::Store(store) => store.fmt(f),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_directory_or_a_store_that_can_be_reached() {
        let kind = |text: &str| match Place::parse(text) {
            Ok(Place::Directory(_)) => "directory".to_owned(),
            Ok(Place::Store(store)) => format!("{:?}", store.kind),
            Err(error) => error.to_string(),
        };
        for (text, expected) in [
            (".turret/generations", "directory"),
            ("/var/lib/turret", "directory"),
            ("s3://ads/generations", "S3"),
            ("s3://ads", "S3"),
            ("gs://ads/generations", "Google"),
            ("az://ads/generations", "Azure"),
            ("file:///srv/generations", "Files"),
        ] {
            assert_eq!(kind(text), expected, "{text}");
            assert_eq!(Place::parse(text).unwrap().to_string(), text);
        }
        for (text, rule) in [
            ("memory:///x", "is neither a directory nor"),
            ("https://ads.example/x", "is neither a directory nor"),
            ("s3:///prefix", "names no bucket"),
            ("file://srv/generations", "names a host"),
            ("s3://key:secret@ads/x", "credentials come from the environment"),
            ("s3://ads/x?versionId=1", "credentials come from the environment"),
            ("s3://[", "is not a URL"),
        ] {
            assert!(kind(text).contains(rule), "{text}: {}", kind(text));
            assert!(!kind(text).contains("secret"), "{}", kind(text));
        }
    }
}
