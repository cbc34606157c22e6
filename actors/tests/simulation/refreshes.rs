//! The runs of a refresh, as the control node's actor and the partitions of users make them, and what they promise.

use std::collections::{BTreeMap, BTreeSet};

use turret_actors::refresh::cursor::{Cursor, PageEvent, Step};
use turret_retrieval::ids::{GenerationId, UserId};

use crate::random::Random;

const PARTITIONS: u32 = 2;
/// Users of a page.
const PAGE_USERS: usize = 2;

/// What a user's partition holds: positions of the log, of the mark of an erasure, and of what each encoder covers.
#[derive(Clone, Default, Debug)]
pub(crate) struct Kept {
    pub(crate) log_at: u64,
    pub(crate) erased_at: u64,
    pub(crate) covers: BTreeMap<GenerationId, u64>,
}

impl Kept {
    fn is_dirty(&self, encoder: &GenerationId) -> bool {
        self.covers.get(encoder).copied().unwrap_or(0) < self.log_at
    }
}

/// A page that has encoded users and not yet written their states.
struct Page {
    encoder: GenerationId,
    partition: u32,
    users: Vec<(u64, u64)>,
    /// How many of them have their state written: one is a chunk here, and a crash may come before the next.
    written: usize,
    next: Option<UserId>,
}

struct Run {
    cursor: Cursor,
    encoders: Vec<GenerationId>,
    /// Encoders that were passed over as retired.
    retired: BTreeSet<GenerationId>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Refreshes {
    // On the disk: the number of the last run, whether it goes on, and how far it came in each partition.
    run: u64,
    goes_on: bool,
    progress: BTreeMap<(GenerationId, u32), (u64, UserId)>,
    // In memory.
    now: Option<Run>,
    page: Option<Page>,
    // What the promises are judged by.
    logs_at_start: Vec<u64>,
    encoded: BTreeSet<(GenerationId, u64, u64)>,
    cut_off: BTreeSet<(GenerationId, u64, u64)>,
    broken: Option<String>,
    pub(crate) seen: BTreeSet<&'static str>,
}

impl Refreshes {
    pub(crate) fn start(&mut self, users: &[Kept], encoders: Vec<GenerationId>) {
        if self.now.is_some() {
            return;
        }
        (self.run, self.goes_on) = (self.run + 1, true);
        self.logs_at_start = users.iter().map(|kept| kept.log_at).collect();
        self.encoded.clear();
        self.cut_off.clear();
        self.go(encoders);
    }

    fn go(&mut self, encoders: Vec<GenerationId>) {
        let cursor = Cursor::new(PARTITIONS * encoders.len() as u32);
        self.now = Some(Run { cursor, encoders, retired: BTreeSet::new() });
    }

    /// The process ends, and starts again.
    pub(crate) fn restart(&mut self, encoders: Vec<GenerationId>) {
        if let Some(page) = self.page.take() {
            let unwritten = page.users.into_iter().skip(page.written);
            self.cut_off.extend(unwritten.map(|(user, at)| (page.encoder.clone(), user, at)));
            if page.written > 0 {
                self.seen.insert("crash behind a state");
            }
        }
        self.now = None;
        if self.goes_on {
            self.seen.insert("refresh gone on with");
            self.go(encoders);
        }
    }

    /// Encodes a page, or writes a chunk of the one that was encoded, with how far the run is then; `serving` are the encoders of now.
    pub(crate) fn step(&mut self, users: &mut [Kept], serving: &[GenerationId], random: &mut Random) {
        if let Some(page) = self.page.take() {
            return self.write(page, users, random);
        }
        let Some(run) = &mut self.now else { return };
        let Step::Ask { partition, after, .. } = run.cursor.step() else { return self.end(users, serving) };
        let encoder = run.encoders[(partition.0 / PARTITIONS) as usize].clone();
        if !serving.contains(&encoder) {
            run.retired.insert(encoder);
            return run.cursor.take(PageEvent::Done { refreshed: 0, next: None });
        }
        if random.one_in(5) {
            return run.cursor.take(PageEvent::Failed);
        }
        let partition = partition.0 % PARTITIONS;
        let written = self.progress.get(&(encoder.clone(), partition)).filter(|(run, _)| *run == self.run);
        let after = after.max(written.map(|(_, after)| after.clone()));
        let dirty = (0..users.len() as u64).filter(|user| {
            user % u64::from(PARTITIONS) == u64::from(partition)
                && after.as_ref().is_none_or(|after| UserId::from(*user) > *after)
                && users[*user as usize].is_dirty(&encoder)
        });
        let mut page: Vec<u64> = dirty.collect();
        let more = page.split_off(page.len().min(PAGE_USERS));
        let next = page.last().filter(|_| !more.is_empty()).map(|user| UserId::from(*user));
        let users: Vec<(u64, u64)> = page.into_iter().map(|user| (user, users[user as usize].log_at)).collect();
        for (user, at) in &users {
            let encoding = (encoder.clone(), *user, *at);
            // Only what a crash cut off is encoded again.
            if !self.encoded.insert(encoding.clone()) && !self.cut_off.remove(&encoding) {
                self.broken = Some(format!("run {} encodes user {user} twice by {encoder}", self.run));
            }
        }
        self.page = Some(Page { encoder, partition, users, written: 0, next });
    }

    fn write(&mut self, mut page: Page, users: &mut [Kept], random: &mut Random) {
        // Time may be up before the last one is encoded: the rest is asked for again.
        let is_late = page.users.len() == PAGE_USERS && page.written == PAGE_USERS - 1 && random.one_in(4);
        if !is_late && page.written < page.users.len() {
            // By the lengths of their histories, not by their ids.
            let next = page.written + random.below((page.users.len() - page.written) as u64) as usize;
            page.users.swap(page.written, next);
            let (user, read_at) = &page.users[page.written];
            let kept = &mut users[*user as usize];
            // As the store does: what covers less than the mark, or more than is there, is not written.
            if *read_at >= kept.erased_at && *read_at <= kept.log_at {
                kept.covers.insert(page.encoder.clone(), *read_at);
            }
            page.written += 1;
            // The run is as far as everybody before has a state.
            let (written, lacking) = page.users.split_at(page.written);
            let whole =
                written.iter().map(|(user, _)| *user).filter(|user| lacking.iter().all(|(other, _)| user < other));
            if let Some(last) = whole.max() {
                self.progress.insert((page.encoder.clone(), page.partition), (self.run, UserId::from(last)));
            }
            self.page = Some(page);
            return;
        }
        let refreshed = page.written as u32;
        let event = if is_late {
            for (user, read_at) in &page.users[page.written..] {
                self.encoded.remove(&(page.encoder.clone(), *user, *read_at));
            }
            PageEvent::Part { refreshed }
        } else {
            PageEvent::Done { refreshed, next: page.next }
        };
        if let Some(run) = &mut self.now {
            run.cursor.take(event);
        }
    }

    /// After a run without a failure, the states of every encoder that serves cover what the logs held when it began: whichever
    /// generation takes over next, or back, nobody's state is older than that.
    fn end(&mut self, users: &[Kept], serving: &[GenerationId]) {
        self.goes_on = false;
        let Some(run) = self.now.take() else { return };
        if run.cursor.failed > 0 {
            return;
        }
        self.seen.insert("refreshed");
        let whole: Vec<_> =
            run.encoders.iter().filter(|of| serving.contains(of) && !run.retired.contains(of)).collect();
        if whole.len() > 1 {
            self.seen.insert("refreshed for two encoders");
        }
        for encoder in whole {
            for (user, (kept, began_at)) in users.iter().zip(&self.logs_at_start).enumerate() {
                if kept.erased_at <= *began_at && kept.covers.get(encoder).copied().unwrap_or(0) < *began_at {
                    self.broken = Some(format!("after run {}, user {user} is stale by {encoder}: {kept:?}", self.run));
                }
            }
        }
    }

    /// What must hold after every step.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.broken.clone().map_or(Ok(()), Err)
    }
}
