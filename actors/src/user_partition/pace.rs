//! Pure: how many users a refresh encodes at once.
//!
//! A chunk, which is what a crash may repeat, takes about two milliseconds: a job on each core is encoded while those before are
//! written, for writing takes about as long as encoding does. Smaller jobs would cost too much: each is some messages.
//! On a GPU a job costs a millisecond or two before its first event, so that it is to take longer there, and longer again while
//! nobody asks.
//! What a job takes goes by its users times the longest of their histories, as a batch is as long as that, and by what the fastest of
//! late took: others are held up by those who want the cores too. What is sent and answered must fit into a message.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use turret_model::DeviceName;
use turret_retrieval::event::Event;
use turret_store::Dirty;

use crate::protocol::ENCODE_ROWS_MAX;

/// What jobs are to be like on a device.
#[derive(Clone, Copy, Debug)]
struct Aim {
    /// What one should take to encode while requests come.
    asked: Duration,
    /// While none do.
    idle: Duration,
    /// Users times events that are always taken together.
    size_min: usize,
}

impl Aim {
    const CPU: Self = Self { asked: Duration::from_millis(1), idle: Duration::from_millis(1), size_min: 64 };
    const GPU: Self = Self { asked: Duration::from_millis(2), idle: Duration::from_millis(4), size_min: SIZE_FIRST };
}

/// Users times events of the first job.
const SIZE_FIRST: usize = 1_024;
const SIZE_MAX: usize = 1 << 20;
/// What the fastest took counts for so much more after each job: an encoder may become slower.
const FORGOTTEN: f64 = 1.02;
/// Of the histories of a job, and of its states: half of what a message holds.
const BYTES_MAX: usize = 512 << 10;
/// Of an event, without its ids, about.
const EVENT_BYTES: usize = 16;

/// Learns from what jobs took. Clones share what they learn.
#[derive(Clone, Debug)]
pub struct Pace {
    aim: Aim,
    learnt: Arc<Learnt>,
}

#[derive(Debug, Default)]
struct Learnt {
    /// What one event of each user took of the fastest of late, in picoseconds; 0 before the first job.
    event_ps: AtomicUsize,
    /// Bytes of a state for each event, the most that were seen.
    state_bytes: AtomicUsize,
    /// Whether requests came where the last job was encoded.
    is_asked: AtomicBool,
}

impl Pace {
    /// Of jobs that `device` computes.
    pub fn on(device: DeviceName) -> Self {
        let aim = match device {
            DeviceName::Cpu => Aim::CPU,
            DeviceName::Cuda(_) => Aim::GPU,
        };
        Self { aim, learnt: Arc::default() }
    }

    /// Takes the next job from the end of `users`, who are sorted by the lengths of their histories, the longest
    /// first: at least one, if there is any.
    pub(super) fn take(&self, users: &mut Vec<Dirty>) -> Vec<Dirty> {
        let aim = if self.is_asked() { self.aim.asked } else { self.aim.idle };
        let size = match self.learnt.event_ps.load(Ordering::Relaxed) {
            0 => SIZE_FIRST,
            event_ps => (aim.as_nanos() as usize * 1_000 / event_ps).clamp(self.aim.size_min, SIZE_MAX),
        };
        let state_bytes = self.learnt.state_bytes.load(Ordering::Relaxed);
        let (mut rows, mut asked_bytes) = (0, 0);
        for user in users.iter().rev().take(ENCODE_ROWS_MAX) {
            let events = (rows + 1) * length(user);
            asked_bytes += user.events.iter().map(event_bytes).sum::<usize>();
            let fits = asked_bytes <= BYTES_MAX && events * state_bytes <= BYTES_MAX;
            if rows > 0 && (!fits || events > size) {
                break;
            }
            rows += 1;
        }
        users.split_off(users.len() - rows)
    }

    /// Whether requests came where the last job was encoded.
    pub(super) fn is_asked(&self) -> bool {
        self.learnt.is_asked.load(Ordering::Relaxed)
    }

    /// Takes that in.
    pub(super) fn asked(&self, is_asked: bool) {
        self.learnt.is_asked.store(is_asked, Ordering::Relaxed);
    }

    /// Takes in that a job, at least one user, took so long to encode, and the length of its largest state.
    pub(super) fn took(&self, job: Size, took: Duration, largest_state: usize) {
        let took_ps = (took.as_nanos() as usize).saturating_mul(1_000) / (job.users * job.longest);
        let event_ps = match self.learnt.event_ps.load(Ordering::Relaxed) {
            0 => took_ps,
            // One that was a mistake is not to count for long.
            before => took_ps.clamp(before / 2, (before as f64 * FORGOTTEN).ceil() as usize),
        };
        self.learnt.event_ps.store(event_ps.max(1), Ordering::Relaxed);
        self.learnt.state_bytes.fetch_max(largest_state.div_ceil(job.longest), Ordering::Relaxed);
    }
}

/// What a job is made of.
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

    /// Jobs of many users, on a machine that takes so many nanoseconds an event, for states of so many bytes an event.
    fn jobs(left: Vec<Dirty>, event_ns: u64, state_bytes: usize) -> Vec<Size> {
        jobs_on(&Pace::on(DeviceName::Cpu), left, (Duration::ZERO, event_ns), state_bytes)
    }

    /// The same where a job takes some time before its first event.
    fn jobs_on(pace: &Pace, mut left: Vec<Dirty>, costs: (Duration, u64), state_bytes: usize) -> Vec<Size> {
        let ((first, event_ns), mut sizes) = (costs, Vec::new());
        while !left.is_empty() {
            let size = Size::of(&pace.take(&mut left));
            let took = first + Duration::from_nanos(event_ns * (size.users * size.longest) as u64);
            pace.took(size, took, size.longest * state_bytes);
            sizes.push(size);
        }
        sizes
    }

    #[test]
    fn jobs_come_to_take_what_they_should_whatever_the_lengths_of_histories() {
        let sizes = jobs(users((0..4_000).map(|user| 1 + user % 100), 6), 1_000, 1);
        assert_eq!(sizes.iter().map(|size| size.users).sum::<usize>(), 4_000, "everybody is in one");
        // A millisecond is 1,000 events, or was, of those before.
        assert!(sizes.iter().all(|size| size.users * size.longest <= 1_030), "{sizes:?}");
        let is_full = |size: &Size| size.users == ENCODE_ROWS_MAX || size.users * size.longest > 800;
        assert!(sizes.iter().rev().skip(1).all(is_full), "{sizes:?}");
        let fast = jobs(users(std::iter::repeat_n(2, 4_000), 6), 10, 1);
        assert!(fast.iter().any(|size| size.users == ENCODE_ROWS_MAX), "never more than a worker takes: {fast:?}");
        assert!(jobs(users(std::iter::repeat_n(99, 900), 6), 10_000_000, 1).last().unwrap().users == 1, "never none");
    }

    #[test]
    fn on_a_gpu_jobs_are_worth_what_they_cost_before_their_first_event() {
        let pace = Pace::on(DeviceName::Cuda(0));
        let events = |is_asked, first_us| {
            pace.asked(is_asked);
            let costs = (Duration::from_micros(first_us), 250);
            let sizes = jobs_on(&pace, users(std::iter::repeat_n(50, 50_000), 6), costs, 1);
            let last = sizes[sizes.len() - 2];
            last.users * last.longest
        };
        // 4 ms, of which 1 goes by before the first event: 12,000 events; of 2 ms 4,000.
        assert!((11_000..=12_500).contains(&events(false, 1_000)));
        assert!((3_600..=4_200).contains(&events(true, 1_000)));
        // Never all of it for nothing.
        assert_eq!(events(true, 3_000), 1_000);
    }

    #[test]
    fn what_is_sent_and_what_is_answered_fit_into_a_message() {
        // 100 events of 144 bytes: 36 users; states of 50 KiB: ten.
        let asks = jobs(users(std::iter::repeat_n(100, 4_000), 128), 10, 1);
        assert!(asks.iter().all(|size| size.users * 100 * 144 <= BYTES_MAX), "{asks:?}");
        let lengths = (0..4_000).map(|user| 1 + user % 100);
        let states = jobs(users(lengths, 6), 10, 512);
        assert!(states.iter().skip(1).all(|size| size.users * size.longest * 512 <= BYTES_MAX), "{states:?}");
        assert!(states.iter().any(|size| size.longest > 90 && size.users > 5), "{states:?}");
    }

    #[test]
    fn one_that_is_held_up_changes_little_and_many_change_much() {
        let pace = Pace::on(DeviceName::Cpu);
        let took = |us| pace.took(Size { users: 16, longest: 64 }, Duration::from_micros(us), 0);
        let taken = || pace.take(&mut users(std::iter::repeat_n(64, 100), 6)).len();
        took(1_024);
        assert_eq!(taken(), 15);
        took(0);
        assert_eq!(taken(), 31, "at most twice as many");
        took(9_000_000);
        assert_eq!(taken(), 30);
        (0..600).for_each(|_| took(9_000_000));
        assert_eq!(taken(), 1);
    }
}
