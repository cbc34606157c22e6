//! A small marketplace, a model trained on it and its generation, made by the program once for each build of it.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use turret_retrieval::generation::Manifest;
use turret_retrieval::hashing::{partition_of, stable_hash};
use turret_retrieval::ids::{PartitionId, UserId};

use crate::process::{text, turret};

/// Users of the marketplace: `u0`, `u1` and so on.
const USERS: u32 = 300;
/// Made again when older: user states of yesterday would be stale.
const AGE_MAX: Duration = Duration::from_secs(12 * 3_600);
/// The file that says that a world is complete.
const COMPLETE: &str = "COMPLETE";

/// What there is to serve. Shared by tests, and never written to by them.
pub(crate) struct World {
    /// Where everything of it lies.
    pub(crate) dir: PathBuf,
    /// The manifest of its one generation.
    pub(crate) manifest: Manifest,
    /// Interests that the marketplace has.
    pub(crate) interests: Vec<String>,
    // Held shared while the world is used, so that no other process removes it.
    _lock: File,
}

/// The world of this build.
pub(crate) fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(World::open)
}

impl World {
    fn open() -> Self {
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let name = format!("world-{:016x}", digest_of(Path::new(env!("CARGO_BIN_EXE_turret"))));
        let dir = parent.join(&name);
        let lock = lock_file(parent, &name);
        loop {
            lock.lock_shared().unwrap();
            if is_usable(&dir) {
                remove_others(parent, &name);
                return Self::read(dir, lock);
            }
            lock.unlock().unwrap();
            lock.lock().unwrap();
            // Whoever waited for the same lock may have made it meanwhile.
            if !is_usable(&dir) {
                make(&dir);
            }
            lock.unlock().unwrap();
        }
    }

    fn read(dir: PathBuf, lock: File) -> Self {
        let current = fs::read_to_string(dir.join("generations/CURRENT")).unwrap();
        let manifest = fs::read(dir.join("generations").join(current.trim()).join("manifest.json")).unwrap();
        let truth: Value =
            serde_json::from_slice(&fs::read(dir.join("marketplace/truth/manifest.json")).unwrap()).unwrap();
        let trends = truth["trends"].as_array().into_iter().flatten().filter_map(Value::as_array).flatten();
        let interests: Vec<String> = trends.filter_map(Value::as_str).map(str::to_owned).collect();
        assert!(interests.len() >= 4, "the marketplace tells what was in fashion: {truth:#}");
        Self { manifest: serde_json::from_slice(&manifest).unwrap(), interests, dir, _lock: lock }
    }

    /// Where its generation is published.
    pub(crate) fn generations(&self) -> PathBuf {
        self.dir.join("generations")
    }

    /// The directory of its generation.
    pub(crate) fn generation(&self) -> PathBuf {
        self.generations().join(self.manifest.id.as_str())
    }

    /// The partition of a user.
    pub(crate) fn partition(&self, user: &str) -> u32 {
        partition_of(&UserId::new(user).unwrap(), self.manifest.partitions()).0
    }

    /// The first `count` users of each partition of `partitions`, by name.
    pub(crate) fn users_of(&self, partitions: &[PartitionId], count: usize) -> Vec<String> {
        let of = |partition: &PartitionId| {
            let names = (0..USERS).map(|number| format!("u{number}"));
            names.filter(|user| self.partition(user) == partition.0).take(count).collect::<Vec<_>>()
        };
        partitions.iter().flat_map(of).collect()
    }

    /// A user of each partition.
    pub(crate) fn user_of_each_partition(&self) -> Vec<String> {
        let all: Vec<PartitionId> = (0..self.manifest.partitions()).map(PartitionId).collect();
        self.users_of(&all, 1)
    }
}

/// Differs when the program differs.
fn digest_of(program: &Path) -> u64 {
    let mut file = File::open(program).unwrap();
    let mut block = vec![0; 1 << 20];
    let mut hash = 0;
    loop {
        match file.read(&mut block).unwrap() {
            0 => return hash,
            read => hash = stable_hash(hash, &block[..read]),
        }
    }
}

fn lock_file(parent: &Path, name: &str) -> File {
    let path = parent.join(format!("{name}.lock"));
    File::options().create(true).truncate(false).write(true).open(path).unwrap()
}

fn is_usable(dir: &Path) -> bool {
    let made = fs::metadata(dir.join(COMPLETE)).and_then(|complete| complete.modified());
    // A time in the future gives an error, and is as good as none.
    made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age < AGE_MAX))
}

/// Removes the worlds of other builds that no process uses.
fn remove_others(parent: &Path, name: &str) {
    for entry in fs::read_dir(parent).unwrap().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let Some(other) = file.strip_suffix(".lock").filter(|other| other.starts_with("world-") && *other != name)
        else {
            continue;
        };
        if lock_file(parent, other).try_lock().is_ok() {
            // What cannot be removed now is removed by the next run.
            drop(fs::remove_dir_all(parent.join(other)));
            drop(fs::remove_file(entry.path()));
        }
    }
}

fn make(dir: &Path) {
    if dir.exists() {
        fs::remove_dir_all(dir).unwrap();
    }
    fs::create_dir_all(dir).unwrap();
    let config = dir.join("world.toml");
    fs::write(&config, config_of(dir)).unwrap();
    let marketplace = dir.join("marketplace");
    let size = ["--users", &USERS.to_string(), "--ads", "400", "--advertisers", "20", "--days", "8"];
    turret(&[&["synth", text(&marketplace)], &size[..]].concat()).expect(0);
    turret(&["train", "--config", text(&config), "--only", "contextual"]).expect(0);
    turret(&["publish", "--config", text(&config)]).expect(0);
    fs::write(dir.join(COMPLETE), []).unwrap();
}

/// A configuration that trains and publishes in `dir`, on the marketplace there. Small enough to train in a second.
pub(crate) fn config_of(dir: &Path) -> String {
    config_between(dir, dir)
}

/// The same, where the marketplace is that of `from`.
pub(crate) fn config_between(from: &Path, dir: &Path) -> String {
    let (from, dir) = (text(from), text(dir));
    format!(
        r#"
data_dir = "{dir}"
generations = "{dir}/generations"
models = "{dir}/models"

[data]
dir = "{from}/marketplace"

[split]
kind = "temporal"
cut = 2026-01-12T00:00:00Z
until = 2026-01-13T00:00:00Z

[model]
dimension = 16
layers = 1
heads = 2
feed_forward = 32
head_hidden = 32
history_length_max = 16
id_buckets = 1_024
advertiser_buckets = 64
query_buckets = 1_024

[training]
steps = 20
batch_size = 32
negatives = 32
warmup_steps = 5
window_days = 2

[training.synthetic_context]
query_share = 0.3

[index]
shards = 6

[users]
partitions = 6
"#
    )
}
