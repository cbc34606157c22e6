//! What a training reads: parts of the log and batches, each made on a thread of its own while the step before runs.

use std::ops::RangeInclusive;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use turret_retrieval::dataset::{Part, PartError, Parts};

use super::plan::{Plan, Visit};
use crate::batch::{Batch, Batches, Shared};
use crate::examples::Sampler;
use crate::settings::Split;

/// Batches that wait to be trained on.
const BATCHES_AHEAD: usize = 1;

/// Where batches come from.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) data: &'a dyn Parts,
    pub(super) split: &'a Split,
    pub(super) shared: Shared<'a>,
    pub(super) plan: &'a Plan,
}

/// The batches of a training, in the order of its steps.
pub(super) struct Feed(Receiver<Result<Batch, PartError>>);

impl Feed {
    /// The batch of the next step; there is one for each of the steps that were asked for.
    pub(super) fn next(&self) -> Result<Batch, PartError> {
        self.0.recv().expect("the threads send a batch for every step, or why there is none")
    }
}

/// Calls `train` with the batches of `steps`. The threads end when it returns.
///
/// In memory at one time: the part that is drawn from, and the next one.
pub(super) fn with_feed<R>(source: Source<'_>, steps: RangeInclusive<usize>, train: impl FnOnce(Feed) -> R) -> R {
    let visits = source.plan.visits(steps);
    thread::scope(|scope| {
        // A rendezvous: one part is ready, and the next is not read before this one is taken.
        let (part, parts) = sync_channel(0);
        let (batch, batches) = sync_channel(BATCHES_AHEAD);
        scope.spawn(move || load(source.data, visits, &part));
        scope.spawn(move || make(source, &parts, &batch));
        train(Feed(batches))
    })
}

/// Reads the parts of `visits` until nobody takes them any more.
fn load<'a>(
    data: &'a dyn Parts,
    visits: impl Iterator<Item = Visit>,
    parts: &SyncSender<Result<(Visit, Part<'a>), PartError>>,
) {
    for visit in visits {
        let read = data.read(visit.part).map(|part| (visit, part));
        let failed = read.is_err();
        if parts.send(read).is_err() || failed {
            return;
        }
    }
}

/// Makes the batches of every part that comes, until nobody takes them any more.
fn make(
    source: Source<'_>,
    parts: &Receiver<Result<(Visit, Part<'_>), PartError>>,
    batches: &SyncSender<Result<Batch, PartError>>,
) {
    for read in parts {
        let made = read.and_then(|(visit, part)| make_of(source, &visit, &part, batches));
        match made {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                // Nobody listens where the training was broken off meanwhile.
                drop(batches.send(Err(error)));
                return;
            }
        }
    }
}

/// Makes the batches of one visit; says whether they were taken.
fn make_of(
    source: Source<'_>,
    visit: &Visit,
    part: &Part<'_>,
    batches: &SyncSender<Result<Batch, PartError>>,
) -> Result<bool, PartError> {
    let Shared { model, training, .. } = source.shared;
    let changed =
        || PartError { number: visit.part, source: "it has changed: no event can be drawn from it any more".into() };
    let sampler = Sampler::new(part, source.split, training, model.history_length_max).ok_or_else(changed)?;
    let mut maker = Batches::new(part, &sampler, source.shared);
    for step in visit.steps.clone() {
        if batches.send(Ok(maker.next(&mut random_of(training.seed, step)))).is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The random numbers of a step, counted from 1: they follow from the seed and the step alone, so that a training that
/// goes on draws what it would have drawn.
pub(super) fn random_of(seed: u64, step: usize) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // Stream 0 made the first weights.
    random.set_stream(step as u64);
    random
}
