//! What a shard begins with: its file or its snapshot, and the changes since.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ractor::ActorRef;
use tokio::sync::watch;
use turret_index::{ChangeError, GraphOrigin, Opened, Origin, ShardChange, ShardIndex};
use turret_retrieval::generation::Probes;
use turret_retrieval::vector::UnitVector;

use super::snapshots::SnapshotFile;
use super::{AGAIN_AFTER, CHANGES_WAIT, IndexShard, Msg, Note, Reached, State};
use crate::generation::shard_file;
use crate::groups;
use crate::live_ads::Ads;
use crate::offload::Panicked;
use crate::protocol::ReplayAsk;
use crate::task::Task;
use crate::wire::note;

/// Changes that are made at once by a shard that catches up.
const CATCH_UP_CHANGES: usize = 4_096;

/// An index in memory.
pub struct Loaded {
    index: ShardIndex,
    reached: Reached,
    /// Whether its graph had to be built or measured, which a snapshot would save the next start.
    is_to_be_written: bool,
    /// The snapshot that it was opened from.
    snapshot: Option<SnapshotFile>,
}

impl IndexShard {
    /// Blocking: opens the snapshot of this node, or where there is none that is sound, makes sure that the published file is the
    /// one that was published, and opens that.
    pub(super) fn load(&self) -> Result<Loaded, String> {
        let opens = |from: &str| self.metrics.index_opens.with_label_values(&[from]).inc();
        let snapshot = self.snapshot_file();
        let mut from = "published";
        if snapshot.exists() {
            let opened = catch_unwind(AssertUnwindSafe(|| self.open(&snapshot, &self.lineage())));
            match opened.unwrap_or_else(|_| Err("opening it panicked".to_owned())) {
                Ok(opened) => {
                    opens("snapshot");
                    return Ok(Loaded { snapshot: SnapshotFile::at(&snapshot), ..self.opened_from(opened) });
                }
                Err(error) => {
                    tracing::warn!(shard = %self.shard, error, "the snapshot is not used, the published file is opened");
                    from = "published_instead";
                }
            }
        }
        let file = shard_file(self.shard);
        self.generation.verify(&file).map_err(|error| error.to_string())?;
        let opened = self.open(&self.generation.dir.join(file), self.generation.manifest.id.as_str())?;
        opens(from);
        Ok(self.opened_from(opened))
    }

    fn open(&self, path: &std::path::Path, generation: &str) -> Result<Opened, String> {
        let origin = Origin { generation, dimension: self.generation.manifest.dimension as usize };
        let mut go_on = |_: _| ControlFlow::Continue(());
        ShardIndex::open(path, &origin, &self.settings, &|| self.queries(), &mut go_on)
            .map_err(|error| error.to_string())
    }

    /// Blocking: what the publication measured its shards with, for where this node's settings are others.
    fn queries(&self) -> Vec<UnitVector> {
        match self.generation.probes() {
            Ok(probes) => Probes::measuring(probes.probes.into_iter().map(|probe| probe.vector)),
            Err(error) => {
                tracing::warn!(shard = %self.shard, %error, "there are no queries of the publication to measure lists with");
                Vec::new()
            }
        }
    }

    fn opened_from(&self, opened: Opened) -> Loaded {
        let Opened { index, until, graph, measured_with } = opened;
        let why = match graph {
            GraphOrigin::Unneeded | GraphOrigin::Restored => None,
            GraphOrigin::Built { why } => Some(why),
        };
        if let Some(why) = &why {
            tracing::warn!(shard = %self.shard, why, "the graph of the file was not used, another was built");
        }
        match measured_with {
            Some(0) => {
                tracing::warn!(shard = %self.shard, "lists are measured with ads for queries, and may be too short")
            }
            Some(queries) => {
                tracing::info!(shard = %self.shard, queries, "the file has no lists measured by these settings, they were measured");
            }
            None => {}
        }
        // What was measured with ads is to be measured again by the next start, which may have the queries.
        let is_to_be_written = why.is_some() || measured_with.is_some_and(|queries| queries > 0);
        Loaded { index, reached: Reached::at(until), is_to_be_written, snapshot: None }
    }

    pub(super) fn loaded(&self, loaded: Loaded, myself: &ActorRef<Msg>, state: &mut State) {
        let index: Arc<ShardIndex> = Arc::new(loaded.index);
        state.index = Some(index.clone());
        if let Some(snapshot) = loaded.snapshot {
            state.series.snapshot(snapshot);
        }
        state.pace.count(usize::from(loaded.is_to_be_written));
        let (own, myself) = (self.clone(), myself.clone());
        state.catching_up = Some(Task::spawn(async move {
            let reached = watch::Sender::new(loaded.reached);
            let caught_up = tokio::time::timeout(CHANGES_WAIT, own.catch_up(&index, &reached, &myself)).await;
            let reached = *reached.borrow();
            note(&myself, Note::CaughtUp { reached, is_complete: caught_up.is_ok() });
        }));
    }

    pub(super) fn caught_up(&self, reached: Reached, is_complete: bool, myself: &ActorRef<Msg>, state: &mut State) {
        let shard = self.shard.to_string();
        state.verified = is_complete;
        if !is_complete {
            let wait_s = CHANGES_WAIT.as_secs();
            tracing::warn!(
                shard,
                wait_s,
                "not all changes of ads are known; the shard serves, and asks on for the rest"
            );
        }
        ractor::pg::join(groups::index(self.shard, &self.generation.manifest.id), vec![myself.get_cell()]);
        if let Some(index) = state.index.clone() {
            let stats = index.stats();
            let (ads, backend, bytes_per_ad) = (stats.ads, stats.backend, stats.bytes_per_ad());
            tracing::info!(shard, ads, ?backend, bytes_per_ad, "shard serves");
            state.series.index(&index);
            let (own, myself) = (self.clone(), myself.clone());
            // What came between the last page and the joining of the group was handed to nobody.
            let further = Reached { changes: 0, ..reached };
            state.catching_up = Some(Task::spawn(async move {
                let reached = watch::Sender::new(further);
                own.catch_up(&index, &reached, &myself).await;
                let reached = *reached.borrow();
                note(&myself, Note::Verified(reached));
            }));
        }
        self.reached(reached, myself, state);
    }

    /// Asks for all changes after `reached` until they are made; how far that is, `reached` tells.
    pub(super) async fn catch_up(
        &self,
        index: &Arc<ShardIndex>,
        reached: &watch::Sender<Reached>,
        myself: &ActorRef<Msg>,
    ) {
        let mut at = reached.borrow().until;
        let mut gathered = Vec::new();
        loop {
            let ask = ReplayAsk { generation: self.generation.manifest.id.clone(), shard: self.shard, after: at };
            let page = match Ads.replay(ask).await {
                Ok(page) => page,
                Err(_) => {
                    tokio::time::sleep(AGAIN_AFTER).await;
                    continue;
                }
            };
            at = page.until;
            gathered.extend(page.changes);
            if !page.is_last && gathered.len() < CATCH_UP_CHANGES {
                continue;
            }
            let step = std::mem::take(&mut gathered);
            let count = step.len();
            let all_made = self.make_all(index, step, myself).await;
            note(myself, Note::Changed);
            reached.send_modify(|reached| reached.go_on(at, count, all_made));
            if page.is_last {
                return;
            }
        }
    }

    /// Makes changes; whether all were made. One that cannot be made costs no other: what is refused together is made in halves.
    async fn make_all(&self, index: &Arc<ShardIndex>, step: Vec<ShardChange>, myself: &ActorRef<Msg>) -> bool {
        let (mut left, mut all_made) = (vec![step], true);
        while let Some(mut step) = left.pop() {
            let (own, changes) = (index.clone(), step.clone());
            match self.changes.run(move || own.apply(changes)).await {
                Ok(Ok(())) => {}
                Ok(Err(ChangeError::Broken)) | Err(Panicked) => {
                    note(myself, Note::Panicked);
                    return false;
                }
                Ok(Err(error @ (ChangeError::Kind { .. } | ChangeError::Rows(_) | ChangeError::Patched { .. }))) => {
                    if let [change] = &step[..] {
                        tracing::error!(shard = %self.shard, ad = %change.id, %error, "an ad cannot be changed here");
                        all_made = false;
                        continue;
                    }
                    let later = step.split_off(step.len() / 2);
                    left.extend([later, step]);
                }
            }
        }
        all_made
    }
}
