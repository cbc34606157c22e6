//! The event log of one user: a set of events, bounded, in the order of their times.

use std::collections::HashSet;

use turret_retrieval::event::{Event, EventType};
use turret_retrieval::ids::{EventId, ItemId};

/// What makes two events one: the caller's id, or else all fields.
#[derive(PartialEq, Eq, Hash)]
enum Identity<'a> {
    Named(&'a EventId),
    Fields(&'a ItemId, EventType, i64),
}

impl<'a> Identity<'a> {
    fn of(event: &'a Event) -> Self {
        match &event.event_id {
            Some(id) => Self::Named(id),
            None => Self::Fields(&event.item_id, event.event_type, event.timestamp_ms),
        }
    }
}

/// What became of the events offered to a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Union {
    /// The log after it, oldest first.
    pub(crate) log: Vec<Event>,
    /// Events that are new and kept.
    pub(crate) added: u32,
    /// Events that the log held already, or that were offered twice.
    pub(crate) known: u32,
    /// Events that are new but older than everything a full log keeps.
    pub(crate) dropped: u32,
}

/// By time; of one time by the other fields.
fn order(event: &Event) -> (i64, &ItemId, EventType, Option<&EventId>) {
    (event.timestamp_ms, &event.item_id, event.event_type, event.event_id.as_ref())
}

/// Joins `offered` to `log`, keeping the latest `events_max`.
pub(crate) fn union(log: Vec<Event>, offered: &[Event], events_max: usize) -> Union {
    let mut seen: HashSet<Identity<'_>> = log.iter().map(Identity::of).collect();
    let fresh: Vec<Event> = offered.iter().filter(|event| seen.insert(Identity::of(event))).cloned().collect();
    drop(seen);
    let known = offered.len() - fresh.len();
    let old = log.len();
    let mut all: Vec<(bool, Event)> = log.into_iter().map(|event| (false, event)).collect();
    all.extend(fresh.into_iter().map(|event| (true, event)));
    // A total order, so that the result does not depend on who came first, and what was dropped stays dropped.
    all.sort_by(|(_, a), (_, b)| order(a).cmp(&order(b)));
    let offered_new = all.len() - old;
    let kept: Vec<(bool, Event)> = all.split_off(all.len().saturating_sub(events_max));
    let added = kept.iter().filter(|(is_new, _)| *is_new).count();
    Union {
        log: kept.into_iter().map(|(_, event)| event).collect(),
        added: added as u32,
        known: known as u32,
        dropped: (offered_new - added) as u32,
    }
}

/// Whether every event of `log` is among `others`.
pub(crate) fn is_subset(log: &[Event], others: &[Event]) -> bool {
    let others: HashSet<Identity<'_>> = others.iter().map(Identity::of).collect();
    log.iter().all(|event| others.contains(&Identity::of(event)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(item: u64, at: i64, id: Option<u64>) -> Event {
        Event {
            item_id: ItemId::from(item),
            event_type: EventType::View,
            timestamp_ms: at,
            event_id: id.map(EventId::from),
        }
    }

    #[test]
    fn a_repeated_delivery_is_known_and_an_event_too_old_is_dropped() {
        let log = vec![event(1, 10, None), event(2, 20, Some(7))];
        let offered = [event(1, 10, None), event(9, 99, Some(7)), event(3, 5, None), event(4, 15, None)];
        let union = union(log, &offered, 3);
        assert_eq!(union.log.iter().map(|event| event.timestamp_ms).collect::<Vec<_>>(), [10, 15, 20]);
        assert_eq!((union.added, union.known, union.dropped), (1, 2, 1));
    }

    /// An id always names the same event.
    fn events() -> impl Strategy<Value = Vec<Event>> {
        let named = (0u64..5).prop_map(|id| event(id, id as i64, Some(id)));
        let unnamed = (0u64..6, 0i64..8).prop_map(|(item, at)| event(item, at, None));
        prop::collection::vec(prop_oneof![named, unnamed], 0..20)
    }

    proptest! {
        #[test]
        fn the_union_is_sorted_bounded_and_idempotent(first in events(), second in events(), max in 1usize..12) {
            let once = union(union(vec![], &first, max).log, &second, max);
            prop_assert!(once.log.len() <= max);
            prop_assert!(once.log.is_sorted_by_key(|event| event.timestamp_ms));
            prop_assert_eq!(once.added + once.known + once.dropped, second.len() as u32);
            prop_assert!(is_subset(&once.log, &[first, second.clone()].concat()));
            let again = union(once.log.clone(), &second, max);
            prop_assert_eq!(again.added, 0);
            prop_assert_eq!(again.log, once.log);
        }
    }
}
