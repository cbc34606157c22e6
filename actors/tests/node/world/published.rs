//! A generation on disk, as `turret publish` lays it out: a model of a few steps, 200 ads in 2 shards, 60 users in 4
//! partitions.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use turret_actors::generation::{CURRENT, Generation, MANIFEST, MODEL_DIR, PROBES, shard_file, users_file};
use turret_actors::inference_worker::encode;
use turret_index::{ShardAd, ShardIndex};
use turret_model::{
    Attention, EventWeights, Fusion, HeadInput, HistoryGap, Model, ModelKind, ModelSettings, Objective, Split,
    SyntheticContext, TrainingSettings, train,
};
use turret_retrieval::dataset::{Clock, Dataset, Row};
use turret_retrieval::digest::Digest;
use turret_retrieval::event::{Event, EventType};
use turret_retrieval::generation::{
    BuiltRecall, File as PublishedFile, MANIFEST_FORMAT, Manifest, Metric, Probe, Probes, Versions,
};
use turret_retrieval::hashing::{partition_of, shard_of};
use turret_retrieval::ids::{AdId, AdvertiserId, GenerationId, InterestId, ItemId, PartitionId, ShardId, UserId};
use turret_retrieval::item::{Ad, Attribute, AttributeKind, Interest, Item};
use turret_retrieval::partitioning::Partitioning;
use turret_retrieval::revision::Revision;
use turret_retrieval::state::Precision;
use turret_retrieval::topk::Hit;
use turret_retrieval::user::{Demographics, User};
use turret_retrieval::vector::{UnitVector, dot};
use turret_store::{SnapshotUser, SnapshotWriter, StoredState};

use super::index_settings;

/// How many ads there are; each promotes the item of its number.
pub(crate) const ADS: u64 = 200;
/// Users `0..USERS`; the last one has no events.
pub(crate) const USERS: u64 = 60;
/// How many shards hold the ads.
pub(crate) const SHARDS: u32 = 2;
/// How many partitions hold the users.
pub(crate) const PARTITIONS: u32 = 4;
/// Later than every published event.
pub(crate) const AFTER_MS: i64 = DAYS * DAY_MS;

const CATEGORIES: u64 = 8;
const DAYS: i64 = 6;
const DAY_MS: i64 = 86_400_000;

/// What is published.
pub(crate) static DATASET: LazyLock<Dataset> = LazyLock::new(dataset);

/// The model that is published; trained once a process.
pub(crate) static MODEL: LazyLock<Model> = LazyLock::new(|| {
    let split = Split::temporal(AFTER_MS, AFTER_MS + 1);
    let trained = train(&*DATASET, &split, &model_settings(), &training_settings(), &mut |_| ControlFlow::Continue(()));
    trained.expect("the data set suits the settings").0
});

/// Another one, as a later training would give it.
pub(crate) static NEXT_MODEL: LazyLock<Model> = LazyLock::new(|| {
    let split = Split::temporal(AFTER_MS, AFTER_MS + 1);
    let settings = TrainingSettings { seed: 4, ..training_settings() };
    let trained = train(&*DATASET, &split, &model_settings(), &settings, &mut |_| ControlFlow::Continue(()));
    trained.expect("the data set suits the settings").0
});

/// Makes a generation of `model` called `id` under `generations`; the first one is the current one.
pub(crate) fn publish(generations: &Path, id: &str, model: &Model) -> Generation {
    let dir = generations.join(id);
    for part in ["shards", "users"] {
        fs::create_dir_all(dir.join(part)).unwrap();
    }
    let mut paths: Vec<PathBuf> =
        model.save(&dir.join(MODEL_DIR)).unwrap().into_iter().map(|path| Path::new(MODEL_DIR).join(path)).collect();
    let shard_ads = write_ads(&dir, id, model);
    let partition_users = write_users(&dir, model);
    write_probes(&dir, model);
    paths.push(PROBES.into());
    paths.extend((0..SHARDS).map(|shard| shard_file(ShardId(shard)).into()));
    paths.extend((0..PARTITIONS).map(|partition| users_file(PartitionId(partition)).into()));
    let manifest = Manifest {
        format: MANIFEST_FORMAT,
        id: GenerationId::new(id).unwrap(),
        created_at_ms: now_ms(),
        versions: Versions {
            encoder: model.encoder_version().clone(),
            head: model.head_version().into(),
            ad_tower: model.ad_tower_version().into(),
            index: "index-of-a-test".into(),
            feature_schema: model.feature_schema().clone(),
        },
        dimension: model.dimension() as u32,
        metric: Metric::InnerProduct,
        shard_ads,
        partitioning: Partitioning::Hash,
        partition_users,
        attributes: [("advertiser_id", AttributeKind::Keyword), ("status", AttributeKind::Keyword)]
            .map(|(name, kind)| (name.into(), kind))
            .into(),
        recall: BuiltRecall { k: PROBE_K, probes: PROBE_USERS as u32, recall: 1.0 },
        calibrations: vec![None; SHARDS as usize],
        ads_until: Revision::NONE,
        files: paths.iter().map(|path| published_file(&dir, path)).collect(),
    };
    write_manifest(&dir, &manifest);
    let generation = Generation::open(&dir).unwrap();
    if !generations.join(CURRENT).exists() {
        fs::write(generations.join(CURRENT), id).unwrap();
    }
    generation
}

/// Ads that the probes ask for, and the users whose demographics they are of.
const PROBE_K: u32 = 10;
const PROBE_USERS: u64 = 8;

fn write_probes(dir: &Path, model: &Model) {
    let known: Vec<Demographics> = (0..PROBE_USERS).map(demographics).collect();
    let inputs: Vec<HeadInput<'_>> =
        known.iter().map(|demographics| HeadInput { state: None, context: None, demographics }).collect();
    let items: Vec<&Item> = DATASET.items.iter().collect();
    let embeddings = model.embed_items(&items).unwrap();
    let probe = |vector: UnitVector| {
        let score =
            |(ad, item): (&Ad, &UnitVector)| Hit { ad: ad.id.clone(), score: dot(vector.as_slice(), item.as_slice()) };
        let mut hits: Vec<Hit> = DATASET.ads.iter().zip(&embeddings).map(score).collect();
        hits.sort();
        Probe { ads: hits.into_iter().take(PROBE_K as usize).map(|hit| hit.ad).collect(), vector }
    };
    let probes = model.embed_queries(&inputs).unwrap().into_iter().map(probe).collect();
    fs::write(dir.join(PROBES), serde_json::to_vec(&Probes { k: PROBE_K, probes }).unwrap()).unwrap();
}

/// Writes the manifest of the generation in `dir`.
pub(crate) fn write_manifest(dir: &Path, manifest: &Manifest) {
    fs::write(dir.join(MANIFEST), serde_json::to_vec_pretty(manifest).unwrap()).unwrap();
}

/// The published events of a user, oldest first.
pub(crate) fn history(user: u64) -> Vec<Event> {
    let event = |row: &Row| Event {
        item_id: DATASET.items[row.item as usize].id.clone(),
        event_type: row.kind,
        timestamp_ms: row.at,
        event_id: None,
    };
    DATASET.events_of(user as u32).iter().map(event).collect()
}

fn dataset() -> Dataset {
    let items: Vec<Item> = (0..ADS).map(item).collect();
    let ads = (0..ADS).map(ad).collect();
    let users =
        (0..USERS).map(|number| User { id: UserId::from(number), demographics: demographics(number) }).collect();
    let mut rows = Vec::new();
    for user in 0..USERS - 1 {
        for day in 0..DAYS {
            for event in 0..3 {
                // Mostly the user's own category, and every third day the next one.
                let category = (user + u64::from(day % 3 == 2)) % CATEGORIES;
                let item = category * (ADS / CATEGORIES) + (user * 7 + day as u64 * 5 + event) % (ADS / CATEGORIES);
                rows.push(Row {
                    user: user as u32,
                    item: item as u32,
                    at: day * DAY_MS + (1 + user as i64 % 20) * 3_600_000 + event as i64 * 60_000,
                    session: Some(user as u32 * DAYS as u32 + day as u32),
                    kind: if event == 2 { EventType::Checkout } else { EventType::View },
                });
            }
        }
    }
    Dataset::new(items, ads, users, Clock::Milliseconds, rows)
}

fn item(number: u64) -> Item {
    Item {
        id: ItemId::from(number),
        advertiser: Some(AdvertiserId::from(number % 5)),
        interests: vec![Interest { id: InterestId::from(number / (ADS / CATEGORIES)), confidence: 0.9 }],
        price: Some(number as f32),
        title: None,
        embedding: None,
    }
}

fn ad(number: u64) -> Ad {
    let advertiser = Attribute::Keyword(format!("adv{}", number % 5).into());
    let attributes =
        BTreeMap::from([("advertiser_id".into(), advertiser), ("status".into(), Attribute::Keyword("active".into()))]);
    Ad { id: AdId::new(&format!("ad{number}")).unwrap(), item: ItemId::from(number), attributes }
}

pub(crate) fn demographics(user: u64) -> Demographics {
    let gender = if user.is_multiple_of(2) { "female" } else { "male" };
    Demographics { age: Some(20 + (user % 40) as u8), country: Some("BR".into()), gender: Some(gender.into()) }
}

fn write_ads(dir: &Path, id: &str, model: &Model) -> Vec<u64> {
    let items: Vec<&Item> = DATASET.items.iter().collect();
    let embeddings = model.embed_items(&items).unwrap();
    let mut shards: Vec<Vec<ShardAd>> = (0..SHARDS).map(|_| Vec::new()).collect();
    for (ad, embedding) in DATASET.ads.iter().zip(embeddings) {
        shards[shard_of(&ad.id, SHARDS).0 as usize].push(ShardAd { ad: ad.clone(), embedding });
    }
    for (shard, ads) in (0..).map(ShardId).zip(&shards) {
        let mut go_on = |_: _| ControlFlow::Continue(());
        let index = ShardIndex::build(model.dimension(), ads.clone(), &index_settings(), &[], &mut go_on).unwrap();
        index.snapshot(&dir.join(shard_file(shard)), id, Revision::NONE).unwrap();
    }
    shards.iter().map(|ads| ads.len() as u64).collect()
}

fn write_users(dir: &Path, model: &Model) -> Vec<u64> {
    let create = |partition| SnapshotWriter::create(&dir.join(users_file(PartitionId(partition)))).unwrap();
    let mut writers: Vec<SnapshotWriter> = (0..PARTITIONS).map(create).collect();
    for user in 0..USERS {
        let events = history(user);
        let sequence = encode(model, &[&events], Precision::F16).unwrap().remove(0);
        let state = sequence.zip(events.last()).map(|(sequence, last)| StoredState {
            encoder: model.encoder_version().clone(),
            made_at_ms: now_ms(),
            covers_until_ms: last.timestamp_ms,
            covers: Revision::NONE,
            sequence,
        });
        let id = UserId::from(user);
        let writer = &mut writers[partition_of(&id, PARTITIONS).0 as usize];
        writer.append(&SnapshotUser { user: id, demographics: demographics(user), events, state }).unwrap();
    }
    writers.into_iter().map(|writer| writer.finish().unwrap()).collect()
}

/// How a manifest lists the file `path` of the generation in `dir`.
pub(crate) fn published_file(dir: &Path, path: &Path) -> PublishedFile {
    let (sha256, bytes) = Digest::of_reader(File::open(dir.join(path)).unwrap()).unwrap();
    PublishedFile { path: path.to_str().unwrap().to_owned(), bytes, sha256 }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn model_settings() -> ModelSettings {
    ModelSettings {
        kind: ModelKind::Contextual,
        subject_item: true,
        fusion: Fusion::CrossAttention,
        dimension: 16,
        layers: 1,
        heads: 2,
        feed_forward: 24,
        head_hidden: 32,
        attention: Attention::Causal,
        history_length_max: 20,
        id_buckets: 512,
        advertiser_buckets: 16,
        query_buckets: 8_192,
        content_embedding: false,
    }
}

fn training_settings() -> TrainingSettings {
    TrainingSettings {
        seed: 3,
        steps: 20,
        batch_size: 32,
        negatives: 16,
        learning_rate: 0.01,
        warmup_steps: 5,
        weight_decay: 0.01,
        temperature: 0.1,
        log_q_positives: 1.0,
        log_q_negatives: 1.0,
        objective: Objective::AllAction,
        window_days: 2,
        window_events: 4,
        event_weights: EventWeights { view: 1.0, add_to_cart: 1.0, checkout: 2.0, signup: 1.0 },
        half_life_hours: None,
        history_gap: HistoryGap::Day,
        encoder_dropout: 0.1,
        context_dropout: 0.2,
        context_drop: 0.3,
        id_drop: 0.1,
        history_drop: 0.1,
        demographics_drop: 0.1,
        synthetic_context: SyntheticContext {
            query_share: 0.2,
            label_share: 0.5,
            confidence_noise: 0.3,
            interest_drop: 0.2,
            interest_add: 0.2,
        },
        validation_every_steps: 0,
        validation_cases_max: 100,
        keep_best: true,
        patience: 0,
    }
}
