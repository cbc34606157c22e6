//! Pure: how many users a refresh encodes at once.
//!
//! A chunk, which is what a crash may repeat, takes about two milliseconds. It is encoded in halves, one while the one before is
//! written, for writing takes about as long as encoding does. Smaller ones would cost too much: each is a message and a flush.
//! What a half takes goes by its users times the longest of their histories, as a batch is as long as that; what is sent and
//! answered must fit into a message.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use turret_retrieval::event::Event;
use turret_store::Dirty;

use crate::protocol::ENCODE_ROWS_MAX;

/// What half a chunk should take to encode.
const AIM: Duration = Duration::from_millis(1);
/// Users times events of the first half.
const SIZE_FIRST: usize = 1_024;
/// One that was held up, for others wanted the cores, says nothing of the next: below this, messages and flushes cost more.
const SIZE_MIN: usize = 64;
const SIZE_MAX: usize = 1 << 20;
/// Of the histories of half a chunk, and of its states: half of what a message holds.
const BYTES_MAX: usize = 512 << 10;
/// Of an event, without its ids, about.
const EVENT_BYTES: usize = 16;

/// Learns from what halves of chunks took. Clones share what they learn.
#[derive(Clone, Debug)]
pub struct Pace(Arc<Learnt>);

#[derive(Debug)]
struct Learnt {
    /// Users times events that take [`AIM`].
    size: AtomicUsize,
    /// Bytes of a state for each event, the most that were seen.
    state_bytes: AtomicUsize,
}

impl Default for Pace {
    fn default() -> Self {
        Self(Arc::new(Learnt { size: AtomicUsize::new(SIZE_FIRST), state_bytes: AtomicUsize::new(0) }))
    }
}

impl Pace {
    /// Takes the next half of a chunk from the end of `users`, who are sorted by the lengths of their histories, the longest
    /// first: at least one, if there is any.
    pub(super) fn take(&self, users: &mut Vec<Dirty>) -> Vec<Dirty> {
        let size = self.0.size.load(Ordering::Relaxed);
        let state_bytes = self.0.state_bytes.load(Ordering::Relaxed);
        let (mut rows, mut asked_bytes) = (0, 0);
        for user in users.iter().rev().take(ENCODE_ROWS_MAX) {
            let longest = length(user);
            asked_bytes += user.events.iter().map(event_bytes).sum::<usize>();
            let fits = (rows + 1) * longest <= size
                && asked_bytes <= BYTES_MAX
                && (rows + 1) * longest * state_bytes <= BYTES_MAX;
            if rows > 0 && !fits {
                break;
            }
            rows += 1;
        }
        users.split_off(users.len() - rows)
    }

    /// Takes in that half a chunk, at least one user, took so long to encode, and the length of its largest state.
    pub(super) fn took(&self, half: Size, took: Duration, largest_state: usize) {
        let before = self.0.size.load(Ordering::Relaxed);
        let size = half.users * half.longest;
        let wanted = size as f64 * AIM.as_secs_f64() / took.as_secs_f64().max(1e-6);
        // One that was held up says little of the next.
        let size = (wanted as usize).clamp(before / 2, 2 * before).clamp(SIZE_MIN, SIZE_MAX);
        self.0.size.store(size, Ordering::Relaxed);
        self.0.state_bytes.fetch_max(largest_state.div_ceil(half.longest), Ordering::Relaxed);
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
        let (pace, mut sizes) = (Pace::default(), Vec::new());
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
        // A millisecond is 1,000 events.
        assert!(sizes.iter().all(|size| size.users * size.longest <= 1_030), "{sizes:?}");
        let is_full = |size: &Size| size.users == ENCODE_ROWS_MAX || size.users * size.longest > 800;
        assert!(sizes.iter().rev().skip(1).all(is_full), "{sizes:?}");
        let fast = halves(users(std::iter::repeat_n(2, 4_000), 6), 10, 1);
        assert!(fast.iter().any(|size| size.users == ENCODE_ROWS_MAX), "never more than a worker takes: {fast:?}");
        assert!(halves(users(std::iter::repeat_n(99, 900), 6), 10_000_000, 1).last().unwrap().users == 1, "never none");
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
    fn an_odd_one_changes_little() {
        let pace = Pace::default();
        pace.took(Size { users: 16, longest: 64 }, Duration::ZERO, 0);
        let mut many = users(std::iter::repeat_n(64, 100), 6);
        assert_eq!(pace.take(&mut many).len(), 32);
        pace.took(Size { users: 32, longest: 64 }, Duration::from_secs(9), 1);
        assert_eq!(pace.take(&mut many).len(), 16);
    }
}
