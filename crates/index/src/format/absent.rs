//! The section of ads that are not there.

use std::io;

use turret_retrieval::ids::AdId;
use turret_retrieval::revision::Revision;

use super::decode::Bytes;
use super::sink::Body;
use crate::change::{ABSENT_ADS_MAX, Absent, Registers};

/// Writes them in the order of their ids, behind the revision up to which they are forgotten.
pub(crate) fn write(body: &mut Body<'_>, absent: &Absent) -> io::Result<()> {
    body.put(&absent.floor().bits().to_le_bytes())?;
    let mut all: Vec<(&AdId, &Registers)> = absent.iter().collect();
    all.sort_unstable_by_key(|(id, _)| *id);
    for (id, Registers { content_at, paused, paused_at }) in all {
        let value = (id.as_str(), content_at.bits(), *paused, paused_at.bits());
        body.put(&postcard::to_stdvec(&value).map_err(io::Error::other)?)?;
    }
    Ok(())
}

pub(super) fn read(bytes: &[u8]) -> Result<Absent, String> {
    let mut bytes = Bytes(bytes);
    let mut absent = Absent::since(Revision::from_bits(bytes.u64()?));
    while !bytes.is_empty() {
        if absent.len() == ABSENT_ADS_MAX {
            return Err(format!("more than {ABSENT_ADS_MAX} ads"));
        }
        let (id, content_at, paused, paused_at): (&str, u64, bool, u64) =
            bytes.value(&format!("ad {}", absent.len()))?;
        let id = AdId::new(id).map_err(|error| format!("ad {}: {error}", absent.len()))?;
        let (content_at, paused_at) = (Revision::from_bits(content_at), Revision::from_bits(paused_at));
        if absent.get(&id).is_some() {
            return Err(format!("ad {id} is there twice"));
        }
        absent.insert(id, Registers { content_at, paused, paused_at });
    }
    Ok(absent)
}
