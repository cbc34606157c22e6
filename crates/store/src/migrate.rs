//! Records of earlier versions, rewritten when a store is opened.
//!
//! Versions 1 and 2 kept the states of a user in a tree of their own, and counted events where a revision stands now. What
//! is interrupted goes on at the next opening: a record says which version it is of, and the old trees go last.

use serde::Deserialize;
use sled::Tree;
use turret_retrieval::ids::EncoderVersion;
use turret_retrieval::revision::Revision;
use turret_retrieval::state::{Precision, SequenceState};
use turret_retrieval::user::Demographics;

use crate::StoredState;
use crate::partition::{PartitionStore, WriteError, id_of};
use crate::record::{RECORD_VERSION, UserRecord, encode};

/// The versions that are rewritten.
const BEFORE: std::ops::RangeInclusive<u8> = 1..=2;
const STATES: &str = "states";
const STATE_PARTS: &str = "state_parts";

#[derive(Deserialize)]
struct UserBefore {
    demographics: Demographics,
    events_total: u64,
}

/// Version 2 of what stood before the first bytes of a state.
#[derive(Deserialize)]
struct HeadBefore {
    made_at_ms: i64,
    covers_until_ms: i64,
    covers_events: u64,
    dimension: u32,
    precision: Precision,
    bytes: u32,
}

impl PartitionStore {
    /// Rewrites what earlier versions wrote, as of `now_ms`. What cannot be read stays as it is, or is a state that a
    /// refresh makes again.
    pub(crate) fn migrate(&self, now_ms: i64) -> Result<(), WriteError> {
        if !self.disk.db.tree_names().iter().any(|name| **name == *STATES.as_bytes()) {
            return Ok(());
        }
        let (states, parts) = (self.disk.db.open_tree(STATES)?, self.disk.db.open_tree(STATE_PARTS)?);
        for entry in &self.logs {
            let (key, bytes) = entry?;
            if let Some((version, events)) = bytes.split_first().filter(|(version, _)| BEFORE.contains(version)) {
                debug_assert!(*version < RECORD_VERSION, "of an earlier version");
                self.logs.insert(key, [&[RECORD_VERSION], events].concat())?;
            }
        }
        for entry in &self.users {
            let (key, bytes) = entry?;
            let Some((_, body)) = bytes.split_first().filter(|(version, _)| BEFORE.contains(version)) else { continue };
            let (Ok(before), Ok(user)) = (postcard::from_bytes::<UserBefore>(body), id_of(&key)) else { continue };
            let has_events = before.events_total > 0;
            let log_at = if has_events { Revision::mint(now_ms, Revision::NONE) } else { Revision::NONE };
            let demographics = before.demographics;
            self.users.insert(&key, encode(&UserRecord { demographics, log_at, ..UserRecord::default() }))?;
            for (state, covers_events) in states_before(&states, &parts, &key)? {
                let covers = if covers_events >= before.events_total { log_at } else { Revision::NONE };
                self.put_states(&[(user.clone(), StoredState { covers, ..state })], None)?;
            }
        }
        self.flush()?;
        // The tree by which the work is known goes last.
        self.disk.db.drop_tree(STATE_PARTS)?;
        self.disk.db.drop_tree(STATES)?;
        self.flush()
    }
}

/// The states of a user that can be read, and how many events each covers.
fn states_before(states: &Tree, parts: &Tree, user: &[u8]) -> Result<Vec<(StoredState, u64)>, WriteError> {
    let mut found = Vec::new();
    for entry in states.scan_prefix([user, &[0]].concat()) {
        let (key, record) = entry?;
        let Some((head, mut bytes)) = head_before(&record) else { continue };
        for part in parts.scan_prefix([&key[..], &[0]].concat()).values() {
            let part = part?;
            let body: Option<((i64, u64), &[u8])> = part.get(1..).and_then(|body| postcard::take_from_bytes(body).ok());
            bytes.extend(
                body.filter(|(made, _)| *made == (head.made_at_ms, head.covers_events))
                    .map_or(&[][..], |(_, part)| part),
            );
        }
        let encoder = std::str::from_utf8(&key[user.len() + 1..]).ok().and_then(|text| EncoderVersion::new(text).ok());
        let sequence = SequenceState::from_bytes(bytes.into(), head.dimension as usize, head.precision).ok();
        if let (Some(encoder), Some(sequence)) =
            (encoder, sequence.filter(|state| state.bytes().len() == head.bytes as usize))
        {
            let (made_at_ms, covers_until_ms) = (head.made_at_ms, head.covers_until_ms);
            let state = StoredState { encoder, made_at_ms, covers_until_ms, covers: Revision::NONE, sequence };
            found.push((state, head.covers_events));
        }
    }
    Ok(found)
}

/// The first record of a state: what is known of it, and its first bytes.
fn head_before(record: &[u8]) -> Option<(HeadBefore, Vec<u8>)> {
    match record.split_first()? {
        // One row, of little-endian f16.
        (1, body) => {
            let (made_at_ms, covers_until_ms, covers_events, row): (i64, i64, u64, &[u8]) =
                postcard::from_bytes(body).ok()?;
            let (dimension, bytes, precision) = (row.len() as u32 / 2, row.len() as u32, Precision::F16);
            let head = HeadBefore { made_at_ms, covers_until_ms, covers_events, dimension, precision, bytes };
            Some((head, row.to_vec()))
        }
        (2, body) => {
            let (head, first): (HeadBefore, &[u8]) = postcard::take_from_bytes(body).ok()?;
            Some((head, first.to_vec()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
