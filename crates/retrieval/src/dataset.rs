//! A data set in memory, its ids interned to dense rows; and a log that is read in parts, each a data set of its own.

use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::event::EventType;
use crate::item::{Ad, Item};
use crate::user::User;

/// What [`Row::at`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Milliseconds since 1970-01-01 UTC.
    Milliseconds,
    /// Only the order is known: positions within each user's history, comparable with nothing else.
    Order,
}

/// One event, by row numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Index into [`Dataset::users`].
    pub user: u32,
    /// Index into [`Dataset::items`].
    pub item: u32,
    /// When, as [`Dataset::clock`] counts.
    pub at: i64,
    /// The session, numbered within the data set; `None` where the data has none.
    pub session: Option<u32>,
    /// What was done.
    pub kind: EventType,
}

/// A data set: what is read from Parquet, or generated, and what a model is trained on.
#[derive(Debug)]
pub struct Dataset {
    /// Every item; an event's `item` indexes here. The parts of one log share them.
    pub items: Arc<[Item]>,
    /// Every ad. Where the data set has no ads, every item is one, under its own id.
    pub ads: Vec<Ad>,
    /// Every user; an event's `user` indexes here.
    pub users: Vec<User>,
    /// What the events' `at` counts.
    pub clock: Clock,
    events: Vec<Row>,
    // events[starts[u]..starts[u + 1]] are those of user u.
    starts: Vec<usize>,
}

impl Dataset {
    /// Sorts `events` by user, then time; events of one time keep their order in the input.
    ///
    /// # Panics
    /// When an event names a user or an item that does not exist: the reader interns both.
    pub fn new(
        items: impl Into<Arc<[Item]>>,
        ads: Vec<Ad>,
        users: Vec<User>,
        clock: Clock,
        mut events: Vec<Row>,
    ) -> Self {
        let items = items.into();
        let in_range = |row: &Row| (row.user as usize) < users.len() && (row.item as usize) < items.len();
        assert!(events.iter().all(in_range), "an event names a row that does not exist");
        events.sort_by_key(|row| (row.user, row.at));
        let mut starts = vec![0; users.len() + 1];
        for row in &events {
            starts[row.user as usize + 1] += 1;
        }
        for user in 0..users.len() {
            starts[user + 1] += starts[user];
        }
        Self { items, ads, users, clock, events, starts }
    }

    /// All events, by user, then time.
    pub fn events(&self) -> &[Row] {
        &self.events
    }

    /// Where in [`events`](Self::events) those of `user` stand.
    pub fn range_of(&self, user: u32) -> Range<usize> {
        self.starts[user as usize]..self.starts[user as usize + 1]
    }

    /// The events of `user`, oldest first.
    pub fn events_of(&self, user: u32) -> &[Row] {
        &self.events[self.range_of(user)]
    }
}

/// A log of events that need not fit into memory, split by user into parts that do.
///
/// All events of a user are in one part, and every part is a fair sample of the users, as a hash makes it. What is
/// bounded by tables rather than by the log, the items, is in memory throughout.
pub trait Parts: Sync {
    /// Every item, shared by all parts.
    fn items(&self) -> &[Item];

    /// What the events' `at` counts, in every part.
    fn clock(&self) -> Clock;

    /// How many parts there are, at least one. It is the same on every call.
    fn count(&self) -> usize;

    /// Reads part `number`, counted from 0: the same events on every call, with users of its own. Its ads may be left
    /// out. Called from another thread than the one that uses the part before it.
    ///
    /// # Errors
    /// When it cannot be read.
    ///
    /// # Panics
    /// May panic where `number` is not below [`count`](Self::count).
    fn read(&self, number: usize) -> Result<Part<'_>, PartError>;
}

/// A part of a log in memory.
#[derive(Debug)]
pub enum Part<'a> {
    /// The whole log, which is in memory anyway.
    Whole(&'a Dataset),
    /// Read for this use, and freed after it.
    Read(Box<Dataset>),
}

impl Deref for Part<'_> {
    type Target = Dataset;

    fn deref(&self) -> &Dataset {
        match self {
            Self::Whole(data) => data,
            Self::Read(data) => data,
        }
    }
}

/// Why a part of a log was not read.
#[derive(Debug, thiserror::Error)]
#[error("part {number} of the log: {source}")]
pub struct PartError {
    /// Which part.
    pub number: usize,
    /// What its reader says.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// The case of one part.
impl Parts for Dataset {
    fn items(&self) -> &[Item] {
        &self.items
    }

    fn clock(&self) -> Clock {
        self.clock
    }

    fn count(&self) -> usize {
        1
    }

    fn read(&self, _: usize) -> Result<Part<'_>, PartError> {
        Ok(Part::Whole(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ItemId, UserId};
    use crate::user::Demographics;

    #[test]
    fn events_are_grouped_by_user_and_ties_keep_their_order() {
        let item = |id| Item {
            id: ItemId::from(id),
            advertiser: None,
            interests: vec![],
            price: None,
            title: None,
            embedding: None,
        };
        let user = |id| User { id: UserId::from(id), demographics: Demographics::default() };
        let row = |user, item, at| Row { user, item, at, session: None, kind: EventType::View };
        let data = Dataset::new(
            vec![item(0), item(1), item(2)],
            vec![],
            vec![user(0), user(1), user(2)],
            Clock::Milliseconds,
            vec![row(2, 0, 5), row(0, 2, 7), row(0, 1, 7), row(0, 0, 3)],
        );
        assert_eq!(data.events_of(0).iter().map(|row| row.item).collect::<Vec<_>>(), [0, 2, 1]);
        assert!(data.events_of(1).is_empty());
        assert_eq!(data.range_of(2), 3..4);
    }
}
