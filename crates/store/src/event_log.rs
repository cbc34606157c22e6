//! The event log of one user: a set of events, bounded, in the order of their times.

use std::collections::{HashMap, HashSet};

use turret_retrieval::event::{Event, EventType};
use turret_retrieval::ids::{EventId, ItemId};

use crate::partition::LOG_BYTES_MAX;

/// The fields that identify an event without an id.
type Fields<'a> = (&'a ItemId, EventType, i64);

fn fields(event: &Event) -> Fields<'_> {
    (&event.item_id, event.event_type, event.timestamp_ms)
}

/// Where events stand. Two are one if they have the same id, or the same fields and not both an id: what came with an
/// id once may come without it from elsewhere. It is known by its id then, whichever came first.
struct Places<'a> {
    of_ids: HashMap<&'a EventId, usize>,
    /// Of those that are known by their fields alone.
    unnamed: HashMap<Fields<'a>, usize>,
    /// Of all.
    fields: HashSet<Fields<'a>>,
    /// Whether anybody asks for an event with an id, and for one without: what nobody asks for is not kept.
    asked: [bool; 2],
}

/// What an event is to those that stand there.
enum Meets {
    Nobody,
    Itself,
    /// Itself without an id, which it has, at this place.
    Unnamed(usize),
}

impl<'a> Places<'a> {
    /// Those of `events`, to look for `others`.
    fn of(events: &'a [Event], others: &[Event]) -> Self {
        let asked = [true, false].map(|is_named| others.iter().any(|event| event.event_id.is_some() == is_named));
        let mut places = Self { of_ids: HashMap::new(), unnamed: HashMap::new(), fields: HashSet::new(), asked };
        events.iter().enumerate().for_each(|(at, event)| places.put(at, event));
        places
    }

    fn meets(&self, event: &Event) -> Meets {
        match &event.event_id {
            Some(id) if self.of_ids.contains_key(id) => Meets::Itself,
            Some(_) => self.unnamed.get(&fields(event)).map_or(Meets::Nobody, |at| Meets::Unnamed(*at)),
            None if self.fields.contains(&fields(event)) => Meets::Itself,
            None => Meets::Nobody,
        }
    }

    /// `event` stands at `at` now, in place of itself where it stood there without an id.
    fn put(&mut self, at: usize, event: &'a Event) {
        let [by_id, by_fields] = self.asked;
        if by_fields {
            self.fields.insert(fields(event));
        }
        match &event.event_id {
            Some(id) if by_id => {
                self.of_ids.insert(id, at);
                if !self.unnamed.is_empty() {
                    self.unnamed.remove(&fields(event));
                }
            }
            None if by_id => drop(self.unnamed.insert(fields(event), at)),
            Some(_) | None => {}
        }
    }
}

/// How much of a log is kept: its latest events, within both bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) events_max: usize,
    pub(crate) bytes_max: usize,
}

/// How many of `events`, from the end, a log of at most `events_max` keeps.
pub fn kept_of(events: &[Event], events_max: usize) -> usize {
    Bounds { events_max, bytes_max: LOG_BYTES_MAX }.kept(events.iter())
}

impl Bounds {
    /// How many of `events`, from the end, are within the bounds.
    pub(crate) fn kept<'a>(self, events: impl DoubleEndedIterator<Item = &'a Event>) -> usize {
        let mut bytes = 0;
        let fits = |event: &&Event| {
            bytes += postcard::to_stdvec(event).map_or(usize::MAX, |encoded| encoded.len());
            bytes <= self.bytes_max
        };
        events.rev().take(self.events_max).take_while(fits).count()
    }
}

/// What became of the events offered to a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Union {
    /// The log after it, oldest first.
    pub(crate) log: Vec<Event>,
    /// Whether that is another.
    pub(crate) is_changed: bool,
    /// Events that are new and kept.
    pub(crate) added: u32,
    /// Events that the log held already, or that were offered twice.
    pub(crate) known: u32,
    /// Events that are new but older than everything a full log keeps.
    pub(crate) dropped: u32,
}

/// Joins `offered` to `log`, keeping the latest events within `bounds`. In whatever order, and in whatever parts, the same events
/// come, the log is the same, where an id always names the same event and the bytes bound nothing.
pub(crate) fn union(log: Vec<Event>, offered: &[Event], bounds: Bounds) -> Union {
    let mut places = Places::of(&log, offered);
    // Those of the log, some in place of themselves, then the others.
    let mut named: Vec<(usize, &Event)> = Vec::new();
    let mut fresh: Vec<&Event> = Vec::new();
    for event in offered {
        match places.meets(event) {
            Meets::Nobody => {
                places.put(log.len() + fresh.len(), event);
                fresh.push(event);
            }
            Meets::Unnamed(at) => {
                places.put(at, event);
                match at.checked_sub(log.len()) {
                    Some(at) => fresh[at] = event,
                    None => named.push((at, event)),
                }
            }
            Meets::Itself => {}
        }
    }
    drop(places);
    let (known, offered_new) = (offered.len() - fresh.len(), fresh.len());
    let fresh: Vec<Event> = fresh.into_iter().cloned().collect();
    let named: Vec<(usize, Event)> = named.into_iter().map(|(at, event)| (at, event.clone())).collect();
    let (is_named, before) = (!named.is_empty(), log.len());
    let mut all: Vec<(bool, Event)> = log.into_iter().map(|event| (false, event)).collect();
    named.into_iter().for_each(|(at, event)| all[at].1 = event);
    all.extend(fresh.into_iter().map(|event| (true, event)));
    // A total order, so that the result does not depend on who came first, and what was dropped stays dropped.
    all.sort_by(|(_, a), (_, b)| order(a).cmp(&order(b)));
    let kept = bounds.kept(all.iter().map(|(_, event)| event));
    let kept: Vec<(bool, Event)> = all.split_off(all.len() - kept);
    let added = kept.iter().filter(|(is_new, _)| *is_new).count();
    Union {
        is_changed: added > 0 || is_named || kept.len() < before,
        log: kept.into_iter().map(|(_, event)| event).collect(),
        added: added as u32,
        known: known as u32,
        dropped: (offered_new - added) as u32,
    }
}

/// By time; of one time by the other fields.
fn order(event: &Event) -> (i64, &ItemId, EventType, Option<&EventId>) {
    (event.timestamp_ms, &event.item_id, event.event_type, event.event_id.as_ref())
}

/// Whether every event of `log` is among `others`.
pub(crate) fn is_subset(log: &[Event], others: &[Event]) -> bool {
    let others = Places::of(others, log);
    let is_there = |event| match others.meets(event) {
        Meets::Itself | Meets::Unnamed(_) => true,
        Meets::Nobody => false,
    };
    log.iter().all(is_there)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(events_max: usize) -> Bounds {
        Bounds { events_max, bytes_max: 1 << 20 }
    }

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
        let union = union(log, &offered, events(3));
        assert_eq!(union.log.iter().map(|event| event.timestamp_ms).collect::<Vec<_>>(), [10, 15, 20]);
        assert_eq!((union.added, union.known, union.dropped), (1, 2, 1));
    }

    #[test]
    fn an_event_with_an_id_is_known_when_it_comes_without_and_the_other_way_round() {
        let check = |first: Option<u64>, second: Option<u64>, known| {
            let union = union(vec![event(1, 10, first)], &[event(1, 10, second)], events(9));
            assert_eq!(union.known, known, "{first:?} {second:?}");
        };
        check(Some(7), None, 1);
        check(None, Some(7), 1);
        check(None, None, 1);
        // Two deliveries that their sender tells apart.
        check(Some(7), Some(8), 0);
    }

    #[test]
    fn what_exceeds_the_bytes_is_dropped_and_stays_dropped() {
        let bounds = Bounds { events_max: 100, bytes_max: 20 };
        let offered: Vec<Event> = (0..10).map(|at| event(1, at, None)).collect();
        let once = union(vec![], &offered, bounds);
        assert!(once.added > 0 && once.dropped > 0, "{once:?}");
        let again = union(once.log.clone(), &offered, bounds);
        assert_eq!((again.added, again.dropped), (0, once.dropped));
        assert_eq!(again.log, once.log);
    }

    /// An id always names the same event; several may name what would be one event without them.
    fn batches() -> impl Strategy<Value = Vec<Event>> {
        let named = (0u64..12).prop_map(|id| event(id % 4, (id % 4) as i64, Some(id)));
        let unnamed = (0u64..6, 0i64..8).prop_map(|(item, at)| event(item, at, None));
        let met = (0u64..4).prop_map(|item| event(item, item as i64, None));
        prop::collection::vec(prop_oneof![named, unnamed, met], 0..20)
    }

    proptest! {
        #[test]
        fn the_union_is_sorted_bounded_and_idempotent(first in batches(), second in batches(), max in 1usize..12) {
            let once = union(union(vec![], &first, events(max)).log, &second, events(max));
            prop_assert!(once.log.len() <= max);
            prop_assert!(once.log.is_sorted_by_key(|event| event.timestamp_ms));
            prop_assert_eq!(once.added + once.known + once.dropped, second.len() as u32);
            prop_assert!(is_subset(&once.log, &[first, second.clone()].concat()));
            let again = union(once.log.clone(), &second, events(max));
            prop_assert_eq!(again.added, 0);
            prop_assert_eq!(again.log, once.log);
            prop_assert!(!again.is_changed);
        }

        #[test]
        fn the_log_is_the_same_in_whatever_order_and_parts_events_come(
            (all, mixed) in batches().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
            max in 1usize..12,
            cuts in prop::collection::vec(1usize..5, 0..20),
        ) {
            let at_once = union(vec![], &all, events(max)).log;
            let (mut log, mut left) = (Vec::new(), &mixed[..]);
            for cut in cuts {
                let part = left.split_off(..cut.min(left.len())).unwrap_or_default();
                let union = union(log.clone(), part, events(max));
                prop_assert_eq!(union.is_changed, union.log != log);
                log = union.log;
            }
            prop_assert_eq!(union(log, left, events(max)).log, at_once);
        }

        #[test]
        fn a_log_that_changes_says_so_whatever_bounds_it(first in batches(), second in batches(), bytes_max in 0usize..120) {
            let bounds = Bounds { events_max: 9, bytes_max };
            let log = union(vec![], &first, bounds).log;
            let union = union(log.clone(), &second, bounds);
            prop_assert_eq!(union.is_changed, union.log != log);
        }
    }
}
