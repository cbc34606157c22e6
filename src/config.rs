//! The configuration: one file for the whole cluster, from raw TOML to checked settings in one step.
//!
//! All faults are gathered and reported at once, each with its key path. Nothing is corrected silently. Every key is
//! described in `cluster-config/README.md`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use turret_actors::depot::Place;
use turret_actors::index_shard::SnapshotSettings;
use turret_actors::inference_worker::batcher::BatcherSettings;
use turret_actors::node::{Member, NodeSettings};
use turret_actors::refresh::schedule::Schedule;
use turret_actors::rollout::RolloutSettings;
use turret_data::DataSource;
use turret_index::{Backend, IndexSettings};
use turret_model::{
    DeviceError, DeviceName, EvaluationSettings, ModelSettings, Part, SettingsError, Split, TrainingSettings,
};
use turret_retrieval::generation::Manifest;
use turret_retrieval::state::Precision;
use turret_store::{Retention, StoreSettings};

use crate::publish::Spread;

mod learning;
mod nodes;
mod places;
mod reader;
mod upkeep;

pub use nodes::NodeConfig;
use places::{depot, directory, expand};
use reader::{Faults, Section};

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where nodes keep what is theirs, each below its own name.
    pub data_dir: PathBuf,
    /// Where generations are published.
    pub generations: Place,
    /// Where trained models are kept.
    pub models: PathBuf,
    /// The data set, where the file names one.
    pub data: Option<DataSource>,
    /// The shape of the model.
    pub model: ModelSettings,
    /// How it is trained.
    pub training: TrainingSettings,
    /// A log of more events is split into parts on disk for training.
    pub events_in_memory_max: u64,
    /// What it is trained on and what it is tested on.
    pub split: Split,
    /// How it is tested.
    pub evaluation: EvaluationSettings,
    /// The ad index.
    pub index: IndexConfig,
    /// The user partitions.
    pub users: UsersConfig,
    /// When users with new events are encoded.
    pub refresh: Schedule,
    /// How a generation takes the place of another.
    pub publish: RolloutSettings,
    /// The inference queue.
    pub inference: BatcherSettings,
    /// What inference workers compute on.
    pub inference_device: DeviceName,
    /// The front door.
    pub gateway: GatewayConfig,
    /// The cluster's shared secret.
    pub cookie: String,
    /// The nodes.
    pub nodes: Vec<NodeConfig>,
}

/// The ad index.
#[derive(Clone, Debug)]
pub struct IndexConfig {
    /// How many shards the next generation gets.
    pub shards: u32,
    /// Which ads share one there.
    pub spread: Spread,
    /// How a shard is indexed.
    pub settings: IndexSettings,
    /// When a node writes what it has of a shard.
    pub snapshots: SnapshotSettings,
    /// Searches that may wait on one node.
    pub queue: usize,
    /// One of so many answers is compared with an exact scan; 0 for none.
    pub shadow_every: u64,
}

/// The user partitions.
#[derive(Clone, Debug)]
pub struct UsersConfig {
    /// How many there are, for the life of the data directory.
    pub partitions: u32,
    /// How a partition is kept.
    pub settings: StoreSettings,
    /// How exactly sequence states are kept.
    pub state_precision: Precision,
    /// How long things are kept.
    pub retention: Retention,
}

/// The front door.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Retrievals that may run at once on one node.
    pub in_flight_max: usize,
    /// The deadline of a request that names none.
    pub deadline_ms: u64,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path}: {source}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// Keys or values are wrong: all of them.
    #[error("{path}: {} fault{}\n  {}", faults.len(), if faults.len() == 1 { "" } else { "s" }, faults.join("\n  "))]
    Faults {
        /// The file.
        path: PathBuf,
        /// Each with its key path.
        faults: Vec<String>,
    },
}

/// A generation that this configuration cannot serve.
#[derive(Debug, thiserror::Error)]
#[error("users.partitions: {configured} where generation {generation} was published for {published}; publish again")]
pub struct PartitionsError {
    configured: u32,
    published: u32,
    generation: String,
}

impl Config {
    /// Reads and checks `path`.
    ///
    /// # Errors
    /// With every fault of the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Checks `text`; `path` is named in errors.
    ///
    /// # Errors
    /// With every fault of the text.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let table: toml::Table =
            text.parse().map_err(|source| ConfigError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
        Self::of_table(&table, path)
    }

    /// Checks a parsed file; `path` is named in errors.
    ///
    /// # Errors
    /// With every fault of the table.
    pub fn of_table(table: &toml::Table, path: &Path) -> Result<Self, ConfigError> {
        let faults = Faults::default();
        let root = Section::root(table, faults.clone());
        let config = Self::read(&root, &faults);
        root.finish();
        let faults = faults.take();
        if faults.is_empty() { Ok(config) } else { Err(ConfigError::Faults { path: path.to_owned(), faults }) }
    }

    fn read(root: &Section<'_>, faults: &Faults) -> Self {
        let data_dir = directory(root, "data_dir", Path::new(".turret/data"));
        let users = users(root.section("users"));
        let nodes = nodes::read(root, faults);
        let (training, events_in_memory_max) = learning::training(root.section("training"));
        let split = learning::split(root.section("split"));
        let (inference, inference_device) = inference(root.section("inference"));
        let (index, publish) = (index(root.section("index")), upkeep::publish(root.section("publish")));
        let (spread, target) = (index.spread, index.settings.target_recall);
        if target < publish.probe_recall_min {
            faults.add("index.target_recall", "is below publish.probe_recall_min, by which the generation is judged");
        } else if let Spread::Clustered { target_recall } = spread
            && target_recall * target < publish.probe_recall_min
        {
            let rule = "times index.target_recall is below publish.probe_recall_min, by which the generation is judged";
            faults.add("index.partition_recall", rule);
        }
        Self {
            generations: depot(root, "generations", &data_dir.join("generations")),
            models: directory(root, "models", &data_dir.join("models")),
            data: learning::data(root, faults),
            model: learning::model(root.section("model"), &users),
            training,
            events_in_memory_max,
            evaluation: learning::evaluation(root.section("evaluation"), &split),
            split,
            index,
            refresh: upkeep::refresh(root.section("refresh")),
            publish,
            inference,
            inference_device,
            gateway: gateway(root.section("gateway")),
            cookie: cluster(root.section("cluster"), nodes.len()),
            users,
            nodes,
            data_dir,
        }
    }

    /// Makes `part` what is held out of training and judged on.
    ///
    /// A temporal split is validated with models of its own, which saw less: they are kept in `validation` below the
    /// others.
    ///
    /// # Errors
    /// When the split cannot be validated on.
    pub fn hold_out(&mut self, part: Part) -> Result<(), SettingsError> {
        let split = self.split.of(part)?;
        if part == Part::Validation && split != self.split && matches!(split, Split::Temporal { .. }) {
            self.models = self.models.join("validation");
        }
        self.split = split;
        Ok(())
    }

    /// Whether a node of this configuration can serve `manifest`.
    ///
    /// # Errors
    /// When users would be looked for in other partitions than they are kept in.
    pub fn check_against(&self, manifest: &Manifest) -> Result<(), PartitionsError> {
        let (configured, published) = (self.users.partitions, manifest.partitions());
        if configured == published {
            return Ok(());
        }
        Err(PartitionsError { configured, published, generation: manifest.id.to_string() })
    }

    /// What the node `own` needs to start.
    pub fn node_settings(&self, own: &NodeConfig) -> NodeSettings {
        let member =
            |node: &NodeConfig| Member { name: node.name.clone(), roles: node.roles.clone(), cluster: node.cluster };
        NodeSettings {
            name: own.name.clone(),
            members: self.nodes.iter().map(member).collect(),
            cookie: self.cookie.clone(),
            data_dir: self.data_dir.join(own.name.as_str()),
            index: self.index.settings.clone(),
            snapshots: self.index.snapshots,
            store: self.users.settings.clone(),
            state_precision: self.users.state_precision,
            retention: self.users.retention,
            refresh: self.refresh,
            inference: self.inference,
            inference_device: self.inference_device,
            search_threads: self.index.settings.threads,
            search_queue: self.index.queue,
            in_flight_max: self.gateway.in_flight_max,
            shadow_every: self.index.shadow_every,
            rollout: self.publish.clone(),
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn index(section: Section<'_>) -> IndexConfig {
    let backends = [("auto", Backend::Auto), ("exact", Backend::Exact), ("diskann", Backend::DiskAnn)];
    let standard = IndexSettings::default();
    let config = IndexConfig {
        shards: section.size("shards", 2, 1..=1_024) as u32,
        spread: spread(&section),
        queue: section.size("queue", 256, 1..=100_000),
        shadow_every: section.size("shadow_every", 1_000, 0..=1_000_000_000) as u64,
        snapshots: SnapshotSettings {
            after_changes: section.size("snapshot_after_changes", 5_000, 1..=1_000_000_000) as u64,
            interval: Duration::from_secs(section.integer("snapshot_interval_s", 300, 1..=86_400) as u64),
        },
        settings: IndexSettings {
            backend: section.choice("backend", standard.backend, &backends),
            exact_below_ads: section.size("exact_below_ads", standard.exact_below_ads, 0..=10_000_000),
            degree: section.size("degree", standard.degree, 8..=128),
            build_list: section.size("build_list", standard.build_list, 16..=1_000),
            alpha: section.number("alpha", f64::from(standard.alpha), 1.0..=2.0) as f32,
            target_recall: section.number("target_recall", standard.target_recall, 0.01..=1.0),
            threads: section.size("threads", cores(), 1..=256),
        },
    };
    section.finish();
    config
}

fn spread(section: &Section<'_>) -> Spread {
    let target_recall = section.number("partition_recall", 0.99, 0.5..=1.0);
    let clustered = Spread::Clustered { target_recall };
    section.choice("partitioning", Spread::Hash, &[("hash", Spread::Hash), ("clustered", clustered)])
}

fn users(section: Section<'_>) -> UsersConfig {
    let precisions = Precision::ALL.map(|precision| (precision.name(), precision));
    let config = UsersConfig {
        partitions: section.size("partitions", 4, 1..=1_024) as u32,
        settings: StoreSettings {
            events_per_user_max: section.size("events_per_user_max", 200, 1..=10_000),
            cache_bytes: section.size("cache_bytes", 64 << 20, 1 << 20..=1 << 40) as u64,
        },
        state_precision: section.choice("state_precision", Precision::F16, &precisions),
        retention: Retention {
            events_ms: days(&section, "events_days", 0),
            silent_ms: days(&section, "silent_days", 0),
            erased_ms: days(&section, "erased_days", 90),
        },
    };
    section.finish();
    config
}

/// Days, in milliseconds; 0 is without a limit.
fn days(section: &Section<'_>, key: &'static str, default: i64) -> Option<i64> {
    Some(section.integer(key, default, 0..=36_500)).filter(|days| *days > 0).map(|days| days * 86_400_000)
}

fn inference(section: Section<'_>) -> (BatcherSettings, DeviceName) {
    let settings = BatcherSettings {
        batch_rows_max: section.size("batch_rows_max", 64, 1..=4_096),
        online_queue_rows_max: section.size("queue_rows_max", 1_024, 1..=100_000),
        refresh_queue_jobs_max: section.size("refresh_queue_jobs_max", 64, 1..=10_000),
    };
    // Only named: whether it is there is for the nodes that run the model to find out.
    let device = section.text("device").unwrap_or("cpu").parse().unwrap_or_else(|error: DeviceError| {
        section.fault("device", error);
        DeviceName::Cpu
    });
    section.finish();
    (settings, device)
}

fn gateway(section: Section<'_>) -> GatewayConfig {
    let config = GatewayConfig {
        in_flight_max: section.size("in_flight_max", 256, 1..=100_000),
        deadline_ms: section.size("deadline_ms", 100, 1..=10_000) as u64,
    };
    section.finish();
    config
}

/// The secret that nodes prove to each other: from a file, or from the environment, or written in the open.
fn cluster(section: Section<'_>, nodes: usize) -> String {
    let cookie = match (section.text("cookie"), section.text("cookie_file")) {
        (Some(_), Some(_)) => {
            section.fault("cookie", "cannot stand beside cookie_file");
            String::new()
        }
        (Some(cookie), None) => cookie.to_owned(),
        (None, Some(path)) => match expand(path).map(std::fs::read_to_string) {
            Ok(Ok(text)) => text.trim().to_owned(),
            Ok(Err(error)) => {
                section.fault("cookie_file", error);
                String::new()
            }
            Err(rule) => {
                section.fault("cookie_file", rule);
                String::new()
            }
        },
        (None, None) => String::new(),
    };
    if nodes > 1 && section.is_present() && !(16..=256).contains(&cookie.len()) {
        section.fault("cookie", "must be 16 to 256 bytes: nodes prove it to each other");
    } else if nodes > 1 && !section.is_present() {
        section.fault("cookie", "is required where there is more than one node");
    }
    section.finish();
    cookie
}

/// Whether every value is there once; else the first that is there again.
fn repeated<T: Ord + Clone>(values: impl IntoIterator<Item = T>) -> Option<T> {
    let mut seen = BTreeSet::new();
    values.into_iter().find(|value| !seen.insert(value.clone()))
}
