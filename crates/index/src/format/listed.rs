//! The sections of ids and of registers.

use std::io;

use turret_retrieval::ids::check_id;
use turret_retrieval::revision::Revision;

use super::decode::Bytes;
use super::sink::Body;
use crate::blocks::Blocks;
use crate::change::Registers;
use crate::names::{Name, Names};

/// Writes names in the order of their rows.
pub(crate) fn write_ids<'a>(body: &mut Body<'_>, names: impl Iterator<Item = Name<'a>>) -> io::Result<()> {
    let mut bytes = Vec::new();
    for name in names {
        bytes = postcard::to_extend(&(name.id, name.advertiser), bytes).map_err(io::Error::other)?;
        if bytes.len() > 1 << 16 {
            body.put(&bytes)?;
            bytes.clear();
        }
    }
    body.put(&bytes)
}

pub(super) fn read_ids(bytes: &[u8], rows: usize) -> Result<Names, String> {
    let mut bytes = Bytes(bytes);
    let mut names = Vec::with_capacity(rows);
    for row in 0..rows {
        let (id, advertiser): (&str, Option<&str>) = bytes.value(&format_args!("row {row}").to_string())?;
        check_id(id).map_err(|error| format!("row {row}: {error}"))?;
        names.push(Name { id, advertiser });
    }
    bytes.end()?;
    Ok(names.into_iter().collect())
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
