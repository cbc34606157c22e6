//! Pure: how many users a refresh encodes at once.
//!
//! A chunk, which is what a crash may repeat, takes about two milliseconds. It is encoded in halves, one while the one before is
//! written, for writing takes about as long as encoding does. Smaller ones would cost too much: each is a message and a flush.
//! What a half takes goes by its users times the longest of their histories, as a batch is as long as that, and by what the fastest of
//! late took: others are held up by those who want the cores too. What is sent and answered must fit into a message. An encoder takes
//! whole groups of histories on each of its threads: where a half is a few groups, it is as many for each thread, or some would wait
//! for the last one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use turret_model::GROUP_TOKENS;
use turret_retrieval::event::Event;
use turret_store::Dirty;

use crate::protocol::ENCODE_ROWS_MAX;

/// What half a chunk should take to encode.
const AIM: Duration = Duration::from_millis(1);
/// Users times events of the first half.
const SIZE_FIRST: usize = 1_024;
const SIZE_MIN: usize = 64;
const SIZE_MAX: usize = 1 << 20;
/// What the fastest took counts for so much more after each half: an encoder may become slower.
const FORGOTTEN: f64 = 1.02;
/// A half is larger by so much at most, to be whole groups.
const ROUNDED_UP: f64 = 1.25;
/// Of the histories of half a chunk, and of its states: half of what a message holds.
const BYTES_MAX: usize = 512 << 10;
/// Of an event, without its ids, about.
const EVENT_BYTES: usize = 16;

/// Learns from what halves of chunks took. Clones share what they learn.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Of an encoder.
    threads: usize,
    learnt: Arc<Learnt>,
}

#[derive(Debug)]
struct Learnt {
    /// What one event of each user took of the fastest of late, in picoseconds; 0 before the first half.
    event_ps: AtomicUsize,
    /// Bytes of a state for each event, the most that were seen.
    state_bytes: AtomicUsize,
}

impl Pace {
    /// For an encoder of so many threads.
    pub fn new(threads: usize) -> Self {
        let learnt = Learnt { event_ps: AtomicUsize::new(0), state_bytes: AtomicUsize::new(0) };
        Self { threads: threads.max(1), learnt: Arc::new(learnt) }
    }

    /// Takes the next half of a chunk from the end of `users`, who are sorted by the lengths of their histories, the longest
    /// first: at least one, if there is any.
    pub(super) fn take(&self, users: &mut Vec<Dirty>) -> Vec<Dirty> {
        let size = match self.learnt.event_ps.load(Ordering::Relaxed) {
            0 => SIZE_FIRST,
            event_ps => (AIM.as_nanos() as usize * 1_000 / event_ps).clamp(SIZE_MIN, SIZE_MAX),
        };
        let state_bytes = self.learnt.state_bytes.load(Ordering::Relaxed);
        let (mut rows, mut most, mut asked_bytes) = (0, 0, 0);
        for user in users.iter().rev().take(ENCODE_ROWS_MAX) {
            let longest = length(user);
            asked_bytes += user.events.iter().map(event_bytes).sum::<usize>();
            let fits = asked_bytes <= BYTES_MAX && (most + 1) * longest * state_bytes <= BYTES_MAX;
            if most > 0 && (!fits || (most + 1) * longest > (size as f64 * ROUNDED_UP) as usize) {
                break;
            }
            most += 1;
            if most == 1 || most * longest <= size {
                rows = most;
            }
        }
        let longest = users.iter().rev().take(rows).next_back().map_or(1, length);
        let together = GROUP_TOKENS.div_ceil(longest) * self.threads;
        let rounded = most / together * together;
        users.split_off(users.len() - if rounded > 0 { rounded } else { rows })
    }

    /// Takes in that half a chunk, at least one user, took so long to encode, and the length of its largest state.
    pub(super) fn took(&self, half: Size, took: Duration, largest_state: usize) {
        let took_ps = (took.as_nanos() as usize).saturating_mul(1_000) / (half.users * half.longest);
        let event_ps = match self.learnt.event_ps.load(Ordering::Relaxed) {
            0 => took_ps,
            // One that was a mistake is not to count for long.
            before => took_ps.clamp(before / 2, (before as f64 * FORGOTTEN).ceil() as usize),
        };
        self.learnt.event_ps.store(event_ps.max(1), Ordering::Relaxed);
        self.learnt.state_bytes.fetch_max(largest_state.div_ceil(half.longest), Ordering::Relaxed);
    }
}

/// What half a chunk is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    users: usize,
    longest: usize,
}

impl Size {
    pub(super) fn of(users: &[Dirty]) -> Self {
        Self { users: users.len(), longest: users.iter().map(length).max().unwrap_or(1) }
    }
}

fn length(user: &Dirty) -> usize {
    user.events.len().max(1)
}

fn event_bytes(event: &Event) -> usize {
    EVENT_BYTES + event.item_id.as_str().len() + event.event_id.as_ref().map_or(0, |id| id.as_str().len())
}

#[cfg(test)]
mod tests {
    use turret_retrieval::event::EventType;
    use turret_retrieval::ids::{ItemId, UserId};
    use turret_retrieval::revision::Revision;

    use super::*;

    fn users(lengths: impl Iterator<Item = usize>, id_bytes: usize) -> Vec<Dirty> {
        let event = Event {
            item_id: ItemId::new(&"i".repeat(id_bytes)).unwrap(),
            event_type: EventType::View,
            timestamp_ms: 0,
            event_id: None,
        };
        let user =
            |length| Dirty { user: UserId::from(1), events: vec![event.clone(); length], log_at: Revision::NONE };
        let mut users: Vec<Dirty> = lengths.map(user).collect();
        users.sort_by_key(|user| std::cmp::Reverse(user.events.len()));
        users
    }

    /// Halves of chunks of many users, on a machine that takes so many nanoseconds an event, for states of so many bytes an event.
    fn halves(mut left: Vec<Dirty>, event_ns: u64, state_bytes: usize) -> Vec<Size> {
        let (pace, mut sizes) = (Pace::new(1), Vec::new());
        while !left.is_empty() {
            let size = Size::of(&pace.take(&mut left));
            let took = Duration::from_nanos(event_ns * (size.users * size.longest) as u64);
            pace.took(size, took, size.longest * state_bytes);
            sizes.push(size);
        }
        sizes
    }

    #[test]
    fn halves_of_chunks_come_to_take_what_they_should_whatever_the_lengths_of_histories() {
        let sizes = halves(users((0..4_000).map(|user| 1 + user % 100), 6), 1_000, 1);
        assert_eq!(sizes.iter().map(|size| size.users).sum::<usize>(), 4_000, "everybody is in one");
        // A millisecond is 1,000 events, and may be a quarter more to be whole groups.
        assert!(sizes.iter().all(|size| size.users * size.longest <= 1_290), "{sizes:?}");
        let is_full = |size: &Size| size.users == ENCODE_ROWS_MAX || size.users * size.longest > 800;
        assert!(sizes.iter().rev().skip(1).all(is_full), "{sizes:?}");
        let fast = halves(users(std::iter::repeat_n(2, 4_000), 6), 10, 1);
        assert!(fast.iter().any(|size| size.users == ENCODE_ROWS_MAX), "never more than a worker takes: {fast:?}");
        assert!(halves(users(std::iter::repeat_n(99, 900), 6), 10_000_000, 1).last().unwrap().users == 1, "never none");
    }

    #[test]
    fn a_half_has_as_many_groups_for_each_thread_of_an_encoder() {
        let taken = |threads: usize, length: usize, size: usize| {
            let pace = Pace::new(threads);
            pace.learnt.event_ps.store(1_000_000_000 / size, Ordering::Relaxed);
            pace.take(&mut users(std::iter::repeat_n(length, 200), 6)).len()
        };
        // Three of 98 events are a group: ten users would be four groups, the last of them of one.
        assert_eq!((taken(2, 98, 1_000), taken(1, 98, 1_000), taken(3, 98, 1_000)), (12, 12, 9));
        assert_eq!((taken(2, 98, 800), taken(2, 98, 300), taken(2, 98, 1)), (6, 3, 1), "a quarter more at most");
        assert_eq!(taken(2, 18, 1_000), 60);
    }

    #[test]
    fn what_is_sent_and_what_is_answered_fit_into_a_message() {
        // 100 events of 144 bytes: 36 users; states of 50 KiB: ten.
        let asks = halves(users(std::iter::repeat_n(100, 4_000), 128), 10, 1);
        assert!(asks.iter().all(|size| size.users * 100 * 144 <= BYTES_MAX), "{asks:?}");
        let lengths = (0..4_000).map(|user| 1 + user % 100);
        let states = halves(users(lengths, 6), 10, 512);
        assert!(states.iter().skip(1).all(|size| size.users * size.longest * 512 <= BYTES_MAX), "{states:?}");
        assert!(states.iter().any(|size| size.longest > 90 && size.users > 5), "{states:?}");
    }

    #[test]
    fn one_that_is_held_up_changes_little_and_many_change_much() {
        let pace = Pace::new(1);
        let took = |us| pace.took(Size { users: 16, longest: 64 }, Duration::from_micros(us), 0);
        let taken = || pace.take(&mut users(std::iter::repeat_n(64, 100), 6)).len();
        took(1_024);
        assert_eq!(taken(), 16);
        took(0);
        assert_eq!(taken(), 36, "at most twice as many, and whole groups");
        took(9_000_000);
        assert_eq!(taken(), 36);
        (0..600).for_each(|_| took(9_000_000));
        assert_eq!(taken(), 1);
    }
}
