//! Events and users gathered into a data set in memory: ids become rows, sessions become numbers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use turret_retrieval::dataset::{Clock, Dataset, Row};
use turret_retrieval::ids::UserId;
use turret_retrieval::item::{Ad, Item};
use turret_retrieval::user::{Demographics, User};

use crate::events::Found;
use crate::intern::{Interned, Interner, RawId};

/// Why users and events that were checked make rows.
const SOUND: &str = "whoever gathers checks ids, and gathers fewer than 2^31 rows of a kind";

/// What is gathered of a data set, or of one part of it.
#[derive(Default)]
pub(crate) struct Gathered {
    users: Vec<User>,
    user_rows: Interner,
    events: Vec<Row>,
    session_ids: Interner,
    // A session is one user's, so data sets may count them anew for each.
    sessions: HashMap<(u32, u32), u32>,
}

impl Gathered {
    /// With room for so many events.
    pub(crate) fn with_capacity(events: usize) -> Self {
        Self { events: Vec::with_capacity(events), ..Self::default() }
    }

    /// Adds a user of a sound id, where there is none yet.
    pub(crate) fn user(&mut self, id: RawId<'_>, demographics: Demographics) -> Interned {
        let interned = self.user_rows.intern(id).expect(SOUND);
        if let Interned::New(_) = interned {
            self.users.push(User { id: UserId::new(&id.text()).expect(SOUND), demographics });
        }
        interned
    }

    /// Adds an event; and its user, of whom nothing is known, where there is none yet.
    pub(crate) fn event(&mut self, found: Found<'_>) {
        let user = self.user(found.user, Demographics::default()).row();
        let session = found.session.map(|id| self.session(user, id));
        self.events.push(Row { user, item: found.item, at: found.at, session, kind: found.kind });
    }

    fn session(&mut self, user: u32, id: RawId<'_>) -> u32 {
        let id = self.session_ids.intern(id).expect(SOUND).row();
        let next = u32::try_from(self.sessions.len()).expect(SOUND);
        match self.sessions.entry((user, id)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => *new.insert(next),
        }
    }

    /// All of it, over these items.
    pub(crate) fn into_dataset(self, items: impl Into<Arc<[Item]>>, ads: Vec<Ad>, clock: Clock) -> Dataset {
        Dataset::new(items, ads, self.users, clock, self.events)
    }
}
