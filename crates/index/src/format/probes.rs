//! The section of probes: queries with their exact answers, and a digest of what must come out of the file.

use std::io;

use serde::{Deserialize, Serialize};
use turret_retrieval::topk::Hit;

use super::decode::Bytes;
use super::sink::Body;

/// The most queries.
const PROBES_MAX: usize = 64;
/// Ads that each asks for.
pub(crate) const K: usize = 10;

/// What a shard must answer when it is opened.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Probes {
    pub(crate) probes: Vec<Probe>,
    /// How many of all these ads a walk of the graph met; 0 where there is none.
    pub(crate) met: u32,
    /// Of ids, advertisers and registers of all rows, and of the attributes of those that probes were made of.
    pub(crate) digest: u64,
}

/// A query, and the best ads.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Probe {
    /// The row that it was made of.
    pub(crate) row: u32,
    pub(crate) query: Vec<f32>,
    pub(crate) best: Vec<Hit>,
}

pub(crate) fn write(body: &mut Body<'_>, probes: &Probes) -> io::Result<()> {
    body.put(&postcard::to_stdvec(probes).map_err(io::Error::other)?)
}

pub(super) fn read(bytes: &[u8], rows: usize, dimension: usize) -> Result<Probes, String> {
    let mut bytes = Bytes(bytes);
    let read: Probes = bytes.value("what it holds")?;
    bytes.end()?;
    if read.probes.len() > PROBES_MAX {
        return Err(format!("{} probes, the limit is {PROBES_MAX}", read.probes.len()));
    }
    for (at, Probe { row, query, best }) in read.probes.iter().enumerate() {
        crate::rows::check_unit(query, dimension).map_err(|error| format!("probe {at}: {error}"))?;
        if *row as usize >= rows || best.len() > K {
            return Err(format!("probe {at} is of row {row}, of {rows}, and has {} ads", best.len()));
        }
    }
    Ok(read)
}
