//! The sections of ids and of registers.

use std::io;
use std::sync::Arc;

use turret_retrieval::ids::AdId;
use turret_retrieval::revision::Revision;

use super::decode::Bytes;
use super::sink::Body;
use crate::blocks::Blocks;
use crate::change::Registers;
use crate::view::ListedAd;

/// Writes ads in the order of their rows.
pub(crate) fn write_ids<'a>(body: &mut Body<'_>, ads: impl Iterator<Item = &'a ListedAd>) -> io::Result<()> {
    let mut bytes = Vec::new();
    for ad in ads {
        bytes = postcard::to_extend(&(ad.id.as_str(), ad.advertiser.as_deref()), bytes).map_err(io::Error::other)?;
        if bytes.len() > 1 << 16 {
            body.put(&bytes)?;
            bytes.clear();
        }
    }
    body.put(&bytes)
}

pub(super) fn read_ids(bytes: &[u8], rows: usize) -> Result<Blocks<Arc<ListedAd>>, String> {
    let mut bytes = Bytes(bytes);
    let mut ads = Vec::with_capacity(rows);
    for row in 0..rows {
        let (id, advertiser): (&str, Option<&str>) = bytes.value(&format_args!("row {row}").to_string())?;
        let id = AdId::new(id).map_err(|error| format!("row {row}: {error}"))?;
        ads.push(Arc::new(ListedAd { id, advertiser: advertiser.map(Into::into) }));
    }
    bytes.end()?;
    Ok(ads.into_iter().collect())
}

/// Writes the registers of rows that have any, ascending.
pub(crate) fn write_registers(body: &mut Body<'_>, rows: impl Iterator<Item = (u32, Registers)>) -> io::Result<()> {
    for (row, registers) in rows.filter(|(_, registers)| *registers != Registers::default()) {
        body.put(&row.to_le_bytes())?;
        body.put(&u32::from(registers.paused).to_le_bytes())?;
        body.put(&registers.content_at.bits().to_le_bytes())?;
        body.put(&registers.paused_at.bits().to_le_bytes())?;
    }
    Ok(())
}

pub(super) fn read_registers(bytes: &[u8], rows: usize) -> Result<Blocks<Registers>, String> {
    let mut bytes = Bytes(bytes);
    let mut registers: Blocks<Registers> = (0..rows).map(|_| Registers::default()).collect();
    let mut least = 0;
    while !bytes.is_empty() {
        let (row, paused) = (bytes.u32()?, bytes.u32()?);
        let (content_at, paused_at) = (Revision::from_bits(bytes.u64()?), Revision::from_bits(bytes.u64()?));
        if (row as usize) < least || row as usize >= rows || paused > 1 {
            return Err(format!("row {row}, paused {paused}, behind row {least}, of {rows}"));
        }
        registers.set(row, Registers { content_at, paused: paused == 1, paused_at });
        least = row as usize + 1;
    }
    Ok(registers)
}
