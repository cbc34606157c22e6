//! Values out of the bytes of a section.

use serde::Deserialize;

/// What is left of a section.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(|| "ends too early".to_owned())?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// The next value as postcard.
    pub(super) fn value<T: Deserialize<'a>>(&mut self, what: &str) -> Result<T, String> {
        let (value, rest) = postcard::take_from_bytes(self.0).map_err(|_| format!("{what} cannot be decoded"))?;
        self.0 = rest;
        Ok(value)
    }

    /// That nothing is left.
    pub(super) fn end(&self) -> Result<(), String> {
        if self.0.is_empty() { Ok(()) } else { Err(format!("{} bytes too long", self.0.len())) }
    }
}
