//! SHA-256 digests of files and of what a version is made of.

use std::fmt;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A SHA-256 digest, written as 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(Box<str>);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut digester = Digester::default();
        digester.update(bytes);
        digester.finish()
    }

    /// The digest of everything that `reader` yields, and how many bytes that was.
    ///
    /// # Errors
    /// When reading fails.
    pub fn of_reader(mut reader: impl Read) -> io::Result<(Self, u64)> {
        let mut digester = Digester::default();
        let mut buffer = vec![0; 1 << 16];
        let mut bytes = 0;
        loop {
            let read = reader.read(&mut buffer)?;
            if read == 0 {
                return Ok((digester.finish(), bytes));
            }
            bytes += read as u64;
            digester.update(&buffer[..read]);
        }
    }

    /// The first 12 hexadecimal digits: enough to tell versions apart in names.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

/// A digest in the making.
#[derive(Clone, Default)]
pub struct Digester(Sha256);

impl Digester {
    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything added.
    pub fn finish(self) -> Digest {
        let text: String = self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Digest(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_sha_256() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(b"abc").to_string(), abc);
        assert_eq!(Digest::of_reader(&b"abc"[..]).unwrap(), (Digest::of(b"abc"), 3));
        assert_eq!(Digest::of(b"abc").short(), &abc[..12]);
    }
}
