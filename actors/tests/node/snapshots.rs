//! Shards that are written while they serve, and what becomes of that when they start again.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use prometheus::Registry;
use tokio::time::Instant;
use turret_actors::generation::shard_file;
use turret_actors::groups;
use turret_actors::index_shard::SnapshotSettings;
use turret_actors::metrics::Metrics;
use turret_actors::node::{Node, NodeSettings};
use turret_index::{Backend, IndexSettings, Origin, ShardIndex};
use turret_retrieval::ids::{AdId, ShardId};
use turret_retrieval::live_ad::{AdChange, Promoted};

use crate::world::published::{ADS, DATASET};
use crate::world::{World, ask, depot, until, with_node_set};

/// What becomes of a file.
type Spoil<'a> = &'a dyn Fn(&mut Vec<u8>);

const INTERVAL: Duration = Duration::from_millis(50);

/// Each shard is written after three changes, and has a graph, which the published file has not.
fn often(settings: &mut NodeSettings) {
    settings.snapshots = SnapshotSettings { after_changes: 3, interval: INTERVAL };
    settings.index = IndexSettings { backend: Backend::DiskAnn, ..settings.index.clone() };
}

async fn change(world: &World, ad: &str, change: AdChange) {
    assert!(world.node.ads.change(AdId::new(ad).unwrap(), change).await.unwrap().visible);
}

async fn change_some(world: &World, round: u64) {
    for number in 0..12 {
        let mut promoted = Promoted { ad: DATASET.ads[number].clone(), item: DATASET.items[number].clone() };
        promoted.ad.id = AdId::new(&format!("new{round}-{number}")).unwrap();
        change(world, promoted.ad.id.clone().as_str(), AdChange::Upsert(Box::new(promoted))).await;
    }
    change(world, &format!("ad{}", 3 * round), AdChange::Pause(true)).await;
    change(world, &format!("ad{}", 3 * round + 1), AdChange::Delete).await;
}

async fn shown(world: &World) -> Vec<String> {
    let answer = world.answer(ask(None, ADS as usize + 100)).await;
    assert!(answer.coverage.is_full() && answer.exhausted);
    let mut ads: Vec<String> = answer.candidates.iter().map(|found| found.hit.ad.to_string()).collect();
    ads.sort();
    ads
}

fn file(world: &World, shard: u32) -> PathBuf {
    world.settings.data_dir.join(format!("index/g-test/{shard:04}.snapshot"))
}

/// Queries that the shard was measured with, by these settings, when it was written.
fn measured_with(world: &World, shard: u32, settings: &IndexSettings) -> u32 {
    let manifest = &world.generation.manifest;
    let published = manifest.files.iter().find(|file| file.path == shard_file(ShardId(shard))).unwrap();
    let lineage = format!("{} {}", manifest.id, published.sha256);
    let origin = Origin { generation: &lineage, dimension: manifest.dimension as usize };
    let mut go_on = |_| ControlFlow::Continue(());
    let opened = ShardIndex::open(&file(world, shard), &origin, settings, &Vec::new, &mut go_on).unwrap();
    assert_eq!(opened.measured_with, None, "the next start need not measure");
    opened.index.calibration().unwrap().queries
}

fn opens(metrics: &Metrics, from: &str) -> u64 {
    metrics.index_opens.with_label_values(&[from]).get()
}

async fn restart(world: &World, shard: u32) {
    let group = groups::index(ShardId(shard), &world.generation.manifest.id);
    let killed = world.kill(&group).await;
    world.back(&group, killed).await;
}

/// Waits until both shards were written, and no more is due.
async fn written(world: &World) {
    let count =
        |shard: u32| world.metrics.snapshot_duration.with_label_values(&[&shard.to_string()]).get_sample_count();
    let mut last = ([0, 0], Instant::now());
    until("both shards are written", async || {
        let now = [count(0), count(1)];
        if now != last.0 {
            last = (now, Instant::now());
        }
        now.iter().all(|count| *count > 0) && last.1.elapsed() > 8 * INTERVAL
    })
    .await;
}

#[test]
fn a_shard_starts_from_its_snapshot_and_knows_what_came_since() {
    with_node_set(often, async |world| {
        assert_eq!((opens(&world.metrics, "published"), opens(&world.metrics, "snapshot")), (2, 0));
        change_some(world, 0).await;
        written(world).await;
        // The published file has no graph, so that each node measures its own: with what the publication measures with.
        let probes = world.generation.probes().unwrap().probes.len() as u32;
        assert_eq!([0, 1].map(|shard| measured_with(world, shard, &world.settings.index)), [probes / 2; 2]);
        change_some(world, 1).await;
        let expected = shown(world).await;
        assert_eq!(expected.len(), ADS as usize + 24 - 4);
        for shard in [0, 1] {
            restart(world, shard).await;
            assert_eq!(shown(world).await, expected);
        }
        assert_eq!((opens(&world.metrics, "published"), opens(&world.metrics, "snapshot")), (2, 2));
        // Not only actors die.
        world.node.stop().await;
        let metrics = Metrics::new(&Registry::new()).unwrap();
        let gone = world.settings.data_dir.join("index/g-gone");
        fs::create_dir_all(gone.join("more")).unwrap();
        // Nothing is written from here on, and what was is known by its time.
        let snapshots = SnapshotSettings { after_changes: 1_000, interval: Duration::from_secs(600) };
        let written_at = UNIX_EPOCH + Duration::from_millis(1_500_000_000_250);
        File::options().write(true).open(file(world, 1)).unwrap().set_modified(written_at).unwrap();
        let (settings, generation) = (NodeSettings { snapshots, ..world.settings.clone() }, world.generation.clone());
        let node = Node::start(settings, depot(&generation), generation, metrics.clone()).await.unwrap();
        node.ready().await;
        assert_eq!((opens(&metrics, "published"), opens(&metrics, "snapshot")), (0, 2));
        assert!(!gone.exists() && file(world, 0).exists());
        assert_eq!(metrics.snapshot_last.with_label_values(&["1", "g-test"]).get(), 1_500_000_000.25);
        let bytes = metrics.snapshot_bytes.with_label_values(&["1", "g-test"]).get();
        assert_eq!(bytes as u64, fs::metadata(file(world, 1)).unwrap().len());
        node.stop().await;

        // By other settings nothing was measured: it is as the shard is opened, and that is written though no ad changes.
        let metrics = Metrics::new(&Registry::new()).unwrap();
        let index = IndexSettings { target_recall: 0.9, ..world.settings.index.clone() };
        let settings = NodeSettings { index: index.clone(), ..world.settings.clone() };
        let generation = world.generation.clone();
        let node = Node::start(settings, depot(&generation), generation, metrics.clone()).await.unwrap();
        node.ready().await;
        until("both shards are written anew", async || {
            ["0", "1"].iter().all(|shard| metrics.snapshot_duration.with_label_values(&[shard]).get_sample_count() > 0)
        })
        .await;
        node.stop().await;
        assert_eq!([0, 1].map(|shard| measured_with(world, shard, &index)), [probes / 2; 2]);
    });
}

#[test]
fn a_snapshot_that_is_damaged_or_of_another_generation_is_passed_over() {
    with_node_set(often, async |world| {
        change_some(world, 0).await;
        written(world).await;
        let expected = shown(world).await;
        let sound = fs::read(file(world, 0)).unwrap();
        let spoil: [Spoil<'_>; 3] = [
            &|bytes| bytes.truncate(bytes.len() / 2),
            &|bytes| {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            },
            // Sound, and of the other shard.
            &|bytes| *bytes = fs::read(file(world, 1)).unwrap(),
        ];
        for (tried, spoil) in (1..).zip(spoil) {
            let mut bytes = sound.clone();
            spoil(&mut bytes);
            // The start before had it written anew.
            written(world).await;
            fs::write(file(world, 0), &bytes).unwrap();
            restart(world, 0).await;
            assert_eq!(shown(world).await, expected);
            assert_eq!(opens(&world.metrics, "published_instead"), tried);
        }
    });
}
