//! The generations whose actors run on this node: the one that serves, and while one is published, the next.
//!
//! Owns the two supervisors of each, of its inference worker and of its shards, and outlives whoever publishes: a rollout
//! that dies takes no generation with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use ractor::{Actor, ActorCell, SpawnErr};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use turret_index::IndexSettings;
use turret_model::{DeviceName, Model};
use turret_retrieval::ids::{GenerationId, NodeName};
use turret_retrieval::state::Precision;

use crate::asked::Asked;
use crate::generation::{Generation, MODEL_DIR};
use crate::groups;
use crate::index_shard::{IndexShard, Snapshots};
use crate::inference_worker::InferenceWorker;
use crate::inference_worker::batcher::BatcherSettings;
use crate::inference_worker::encoder::{self, Encoder};
use crate::local_head::LocalHeads;
use crate::metrics::Metrics;
use crate::node::StartError;
use crate::offload::Offload;
use crate::placement::Placement;
use crate::restart::RestartPolicy;
use crate::supervisor::{Child, Supervisor};

/// A supervisor, and its end.
pub(crate) type Root = (ActorCell, JoinHandle<()>);

/// What the actors of a generation are made with.
#[derive(Clone)]
pub struct ServingSettings {
    /// This node.
    pub name: NodeName,
    /// Who holds what.
    pub placement: Placement,
    /// How to index shards.
    pub index: IndexSettings,
    /// Where they are written, and when.
    pub snapshots: Snapshots,
    /// The bounds of the inference queue.
    pub inference: BatcherSettings,
    /// What the inference worker computes on.
    pub device: DeviceName,
    /// Where the models of what runs here answer beside the workers.
    pub heads: LocalHeads,
    /// How exactly states are kept.
    pub state_precision: Precision,
    /// Where searches run, of all generations.
    pub searches: Offload,
    /// Where loading runs.
    pub loads: Offload,
    /// Where ads are changed.
    pub changes: Offload,
    /// Whether requests come.
    pub asked: Asked,
    /// The node's metrics.
    pub metrics: Metrics,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Serving {
    settings: Arc<ServingSettings>,
    running: Arc<Mutex<Running>>,
}

#[derive(Default)]
struct Running {
    roots: BTreeMap<GenerationId, Vec<Root>>,
    /// The node stops: nothing more is started.
    is_closed: bool,
}

impl Serving {
    /// Nothing runs yet.
    pub fn new(settings: ServingSettings) -> Self {
        Self { settings: Arc::new(settings), running: Arc::default() }
    }

    /// Starts the actors of `generation` that are placed here, unless they run. They load and join by themselves. Whoever
    /// gives up waiting for this leaves nothing half done.
    ///
    /// # Errors
    /// When its model is not sound, or the node stops; then nothing runs.
    pub async fn start(&self, generation: &Generation) -> Result<(), StartError> {
        let (own, generation) = (self.clone(), generation.clone());
        tokio::spawn(async move { own.start_whole(&generation).await }).await.unwrap_or(Err(StartError::Panicked))
    }

    async fn start_whole(&self, generation: &Generation) -> Result<(), StartError> {
        let mut running = self.running.lock().await;
        let id = &generation.manifest.id;
        if running.is_closed {
            return Err(StartError::Stopping);
        }
        if running.roots.contains_key(id) {
            return Ok(());
        }
        let (own, of) = (self.settings.clone(), generation.clone());
        // Before the first actor starts, so that a model that is refused leaves none behind.
        let loaded = self.settings.loads.run(move || own.worker(&of)).await;
        let loaded = loaded.map_err(|_| StartError::Panicked)??;
        let worker = loaded.map(|Loaded { worker, head }| {
            self.settings.heads.put(id.clone(), head);
            worker
        });
        let mut roots = Vec::new();
        match self.settings.spawn(generation, worker, &mut roots).await {
            Ok(()) => {
                running.roots.insert(id.clone(), roots);
                Ok(())
            }
            Err(error) => {
                stop_all(roots).await;
                self.settings.heads.remove(id);
                Err(error.into())
            }
        }
    }

    /// Stops the actors of a generation, waits until they have ended, and removes its snapshots; goes on when nobody waits any more.
    pub async fn stop(&self, id: &GenerationId) {
        let roots = self.running.lock().await.roots.remove(id);
        self.settings.heads.remove(id);
        // What panics there has ended what it could.
        drop(tokio::spawn(stop_all(roots.unwrap_or_default())).await);
        let (snapshots, id) = (self.settings.snapshots.clone(), id.clone());
        // Behind one that is being written; where there is no room, the next start sees to it.
        if let Ok(slot) = self.settings.loads.reserve() {
            slot.run(move || snapshots.forget(id.as_str()), |_| ());
        }
    }

    /// Stops all, for good.
    pub async fn close(&self) {
        let mut running = self.running.lock().await;
        running.is_closed = true;
        self.settings.heads.clear();
        for roots in std::mem::take(&mut running.roots).into_values() {
            stop_all(roots).await;
        }
    }
}

/// A model, twice where the worker's device is not the CPU.
struct Loaded {
    worker: InferenceWorker,
    head: Arc<Model>,
}

impl ServingSettings {
    /// Blocking: the worker of this node, with its model and its thread, where the node runs the model.
    fn worker(&self, generation: &Generation) -> Result<Option<Loaded>, StartError> {
        if !self.placement.of(&generation.manifest).inference {
            return Ok(None);
        }
        // First, for a device that is not there need not wait for digests to be refused.
        let device = self.device.open()?;
        generation.verify(MODEL_DIR)?;
        let head = Arc::new(generation.load_model()?);
        self.state_precision.check_fits(head.state_rows_max(), head.dimension())?;
        // Every worker must answer like this before it serves; a model that cannot is refused here.
        let known = head.probe(1)?.pop().expect("the probe has the row that was asked for");
        let model = match self.device {
            DeviceName::Cpu => head.clone(),
            DeviceName::Cuda(_) => Arc::new(head.copy_on(&device)?),
        };
        let worker = InferenceWorker {
            generation: generation.manifest.id.clone(),
            model,
            known,
            settings: self.inference,
            thread: Offload::new("inference", 1, 1)?,
            encoders: Encoder::several(encoder::count(&self.inference, self.device))?,
            asked: self.asked.clone(),
            metrics: self.metrics.clone(),
        };
        Ok(Some(Loaded { worker, head }))
    }

    async fn spawn(
        &self,
        generation: &Generation,
        worker: Option<InferenceWorker>,
        roots: &mut Vec<Root>,
    ) -> Result<(), SpawnErr> {
        let id = &generation.manifest.id;
        if let Some(worker) = worker {
            let child = Child::new(self.actor("inference-0", id), move || (worker.clone(), ()));
            roots.push(self.supervise("inference_worker", id, vec![child]).await?);
        }
        let shards = self.placement.of(&generation.manifest).shards.into_iter().map(|shard| {
            let actor = IndexShard {
                shard,
                generation: generation.clone(),
                settings: self.index.clone(),
                snapshots: self.snapshots.clone(),
                searches: self.searches.clone(),
                loads: self.loads.clone(),
                changes: self.changes.clone(),
                asked: self.asked.clone(),
                metrics: self.metrics.clone(),
            };
            Child::new(self.actor(&format!("index-{shard}"), id), move || (actor.clone(), ()))
        });
        roots.push(self.supervise("index_shard", id, shards.collect()).await?);
        Ok(())
    }

    async fn supervise(&self, kind: &'static str, id: &GenerationId, children: Vec<Child>) -> Result<Root, SpawnErr> {
        let name = self.actor(&format!("{kind}_supervisor"), id);
        let supervisor = Supervisor { kind, policy: RestartPolicy::STANDARD, metrics: self.metrics.clone() };
        let (actor, ended) = Actor::spawn(Some(name), supervisor, children).await?;
        Ok((actor.get_cell(), ended))
    }

    /// Two generations run beside each other, so an actor's name names its own.
    fn actor(&self, kind: &str, id: &GenerationId) -> String {
        groups::actor(&format!("{kind}/{id}"), &self.name)
    }
}

/// Stops roots, the last one first, and waits until they have ended.
pub(crate) async fn stop_all(roots: Vec<Root>) {
    for (root, ended) in roots.into_iter().rev() {
        root.stop(Some("shutdown".to_owned()));
        // A root that panicked has ended too.
        drop(ended.await);
    }
}
