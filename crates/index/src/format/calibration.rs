//! The section of what was measured of the graph.

use std::io;

use serde::{Deserialize, Serialize};
use turret_retrieval::calibration::Calibration;

use super::decode::Bytes;
use super::sink::Body;

/// What was measured of the graph that stands in the same file.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) calibration: Calibration,
    /// Ads that came into the shard since, replaced ones too.
    pub(crate) born: u32,
}

pub(crate) fn write(body: &mut Body<'_>, known: &Known) -> io::Result<()> {
    body.put(&postcard::to_stdvec(known).map_err(io::Error::other)?)
}

pub(super) fn read(bytes: &[u8]) -> Result<Known, String> {
    let mut bytes = Bytes(bytes);
    let known: Known = bytes.value("what was measured")?;
    bytes.end()?;
    known.calibration.check().map_err(str::to_owned)?;
    Ok(known)
}
