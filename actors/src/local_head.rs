//! The heads of the models that this node runs: they answer in the place of workers, where none does.
//!
//! Owns a thread and a short queue of its own, so that what workers refuse because they have too much to do becomes no work
//! without a bound elsewhere. It computes on the CPU whatever the workers run on, and batches nothing: a query takes
//! microseconds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use turret_model::Model;
use turret_retrieval::ids::GenerationId;

use crate::inference_worker::embedding::embed;
use crate::offload::{Offload, OffloadError};
use crate::protocol::{EmbedAsk, Embedded, Refusal};

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct LocalHeads {
    models: Arc<Mutex<BTreeMap<GenerationId, Arc<Model>>>>,
    thread: Offload,
}

impl LocalHeads {
    /// No model yet; of queries, `queue` may wait for the one that is computed.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn new(queue: usize) -> Result<Self, OffloadError> {
        Ok(Self { models: Arc::default(), thread: Offload::new("local-head", 1, queue)? })
    }

    /// Answers for `generation` from now on; `model` is one that is computed on the CPU.
    pub fn put(&self, generation: GenerationId, model: Arc<Model>) {
        self.models().insert(generation, model);
    }

    /// Answers for `generation` no more.
    pub fn remove(&self, generation: &GenerationId) {
        self.models().remove(generation);
    }

    /// Answers for no generation any more.
    pub fn clear(&self) {
        self.models().clear();
    }

    /// Whether this node runs the model of `generation`.
    pub fn answers(&self, generation: &GenerationId) -> bool {
        self.models().contains_key(generation)
    }

    /// The query embedding that a worker would give. What stands in `ask` of the time that remains is not looked at.
    ///
    /// # Errors
    /// When this node does not run the model, too many queries wait, the time passes, or nothing sound comes of it.
    pub async fn embed(&self, ask: EmbedAsk, remaining: Duration) -> Result<Embedded, Refusal> {
        let model = self.models().get(&ask.generation).cloned();
        let model = model.ok_or_else(|| Refusal::OtherVersion {
            serving: "no model of it".to_owned(),
            asked: ask.generation.to_string(),
        })?;
        let slot = self.thread.reserve().map_err(|_| Refusal::Overloaded)?;
        let ends = Instant::now() + remaining;
        let work = move || {
            if Instant::now() >= ends {
                return Err(Refusal::Expired);
            }
            let mut results = embed(&model, &ask.generation, &[&ask]).results;
            results.pop().expect("an ask has a result")
        };
        let (sender, receiver) = oneshot::channel();
        // Who gave up waiting needs no answer.
        slot.run(work, move |answer| drop(sender.send(answer)));
        match timeout(remaining, receiver).await {
            Ok(Ok(Ok(answer))) => answer,
            Ok(Ok(Err(_)) | Err(_)) => Err(Refusal::Failed("the head panicked".to_owned())),
            Err(_) => Err(Refusal::Expired),
        }
    }

    fn models(&self) -> MutexGuard<'_, BTreeMap<GenerationId, Arc<Model>>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
