//! Making a generation: ads embedded and sharded, users encoded and partitioned, one manifest over all of it.
//!
//! Written to `<id>.tmp`, flushed, renamed. It serves nobody yet: a running node judges it and makes it current, and where
//! none runs, [`Depot::make_current`](turret_actors::depot::Depot::make_current) does.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use turret_actors::durable::{sync_dir, write_flushed};
use turret_actors::generation::{MANIFEST, MODEL_DIR, PROBES, shard_file, users_file};
use turret_index::{IndexSettings, ShardAd};
use turret_model::Model;
use turret_retrieval::attribute_schema::{self, well_known};
use turret_retrieval::dataset::Dataset;
use turret_retrieval::digest::{Digest, Digester};
use turret_retrieval::generation::{File as PublishedFile, MANIFEST_FORMAT, Manifest, Metric, Versions};
use turret_retrieval::ids::{AdId, GenerationId, ShardId};
use turret_retrieval::item::{Ad, Attribute, AttributeKind, Item};
use turret_retrieval::live_ad::{Content, LiveAd, patch_attributes};
use turret_retrieval::revision::Revision;
use turret_retrieval::state::Precision;

use crate::encode::Encoding;

mod probes;
mod shards;
mod users;

pub use shards::{FULLNESS_MAX, Spread};

/// What to publish, and where.
pub struct Publication<'a> {
    /// Ads and users.
    pub dataset: &'a Dataset,
    /// The model.
    pub model: &'a Model,
    /// Where generations are written.
    pub generations: &'a Path,
    /// Ids that are taken elsewhere.
    pub taken: &'a BTreeSet<GenerationId>,
    /// How many shards.
    pub shards: u32,
    /// Which ads they share.
    pub spread: Spread,
    /// How many user partitions.
    pub partitions: u32,
    /// Events kept for each user.
    pub events_per_user_max: usize,
    /// How exactly their states are kept.
    pub state_precision: Precision,
    /// What became of ads since the data was written, and up to which revision that goes.
    pub live: (&'a [LiveAd], Revision),
    /// How nodes will index the shards: so is measured what they will find.
    pub index: &'a IndexSettings,
}

impl Publication<'_> {
    /// Its users.
    fn encoding(&self) -> Encoding<'_> {
        Encoding {
            dataset: self.dataset,
            model: self.model,
            partitions: self.partitions,
            events_per_user_max: self.events_per_user_max,
            precision: self.state_precision,
        }
    }
}

/// What was published.
pub struct Published {
    /// Its manifest.
    pub manifest: Manifest,
    /// Ads whose status is not active: they are not in the index.
    pub inactive: u64,
    /// Users with a sequence state.
    pub states: u64,
    /// The bytes of all their states.
    pub state_bytes: u64,
    /// The memory that the shards take where they are served, about.
    pub index_bytes: u64,
}

/// How far a publication is.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Ads embedded, of how many.
    Ads(u64, u64),
    /// Users encoded, of how many.
    Users(u64, u64),
    /// Ads indexed to measure what the index finds, of how many.
    Index(u64, u64),
}

/// Ads embedded at once.
const EMBED_ROWS: usize = 1_024;

/// Makes a generation, which is not the current one yet.
///
/// # Errors
/// When a file cannot be written, a state cannot be kept, an ad cannot be embedded, or `observe` breaks off; nothing is published then.
pub fn publish(
    publication: &Publication<'_>,
    observe: &mut dyn FnMut(Step) -> ControlFlow<()>,
) -> anyhow::Result<Published> {
    let model = publication.model;
    publication.spread.check(publication.shards, model.dimension())?;
    publication.state_precision.check_fits(model.state_rows_max(), model.dimension())?;
    let (id, created_at_ms) = next_id(publication)?;
    let dir = publication.generations.join(id.as_str());
    let temporary = publication.generations.join(format!("{id}.tmp"));
    if temporary.exists() {
        fs::remove_dir_all(&temporary).with_context(|| format!("cannot clear {}", temporary.display()))?;
    }
    for part in [MODEL_DIR, "shards", "users"] {
        fs::create_dir_all(temporary.join(part)).with_context(|| format!("cannot make {}", temporary.display()))?;
    }
    let written = write_parts(publication, &temporary, id, created_at_ms, observe);
    let published = match written {
        Ok(published) => published,
        Err(error) => {
            // The half-made directory is of no use; the error is what matters.
            drop(fs::remove_dir_all(&temporary));
            return Err(error);
        }
    };
    fs::rename(&temporary, &dir).with_context(|| format!("cannot rename {}", temporary.display()))?;
    sync_dir(publication.generations).with_context(|| format!("cannot flush {}", publication.generations.display()))?;
    Ok(published)
}

fn write_parts(
    publication: &Publication<'_>,
    dir: &Path,
    id: GenerationId,
    created_at_ms: i64,
    observe: &mut dyn FnMut(Step) -> ControlFlow<()>,
) -> anyhow::Result<Published> {
    let model = publication.model;
    let mut paths: Vec<PathBuf> =
        model.save(&dir.join(MODEL_DIR))?.into_iter().map(|path| Path::new(MODEL_DIR).join(path)).collect();
    let ads = ads_of(publication);
    let attributes = attribute_kinds(publication, &ads)?;
    let (ads, inactive) = embed(publication, &ads, observe)?;
    let (shards, centroids) = publication.spread.split(ads, publication.shards, model.dimension());
    let shard_ads = shards.iter().map(|ads| ads.len() as u64).collect();
    paths.extend((0..publication.shards).map(|shard| shard_file(ShardId(shard)).into()));
    let measured = probes::write(publication, (dir, &id), shards, centroids, observe)?;
    paths.push(PROBES.into());
    let users = users::write(publication, dir, created_at_ms, observe)?;
    paths.extend((0..publication.partitions).map(|p| users_file(turret_retrieval::ids::PartitionId(p)).into()));

    let files = paths.iter().map(|path| published_file(dir, path)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut index = Digester::default();
    for file in files.iter().filter(|file| file.path.starts_with("shards/")) {
        index.update(file.sha256.to_string().as_bytes());
    }
    let manifest = Manifest {
        format: MANIFEST_FORMAT,
        id,
        created_at_ms,
        versions: Versions {
            encoder: model.encoder_version().clone(),
            head: model.head_version().into(),
            ad_tower: model.ad_tower_version().into(),
            index: format!("index-{}", index.finish().short()).into(),
            feature_schema: model.feature_schema().clone(),
        },
        dimension: model.dimension() as u32,
        metric: Metric::InnerProduct,
        shard_ads,
        partitioning: measured.partitioning,
        partition_users: users.of_partitions,
        attributes,
        recall: measured.recall,
        calibrations: measured.calibrations,
        ads_until: publication.live.1,
        files,
    };
    manifest.check()?;
    let mut text = serde_json::to_vec_pretty(&manifest)?;
    text.push(b'\n');
    let path = dir.join(MANIFEST);
    write_flushed(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Published {
        manifest,
        inactive,
        states: users.states,
        state_bytes: users.state_bytes,
        index_bytes: measured.index_bytes,
    })
}

/// An ad with its item, where the data set has that.
type AdOfItem<'a> = (Cow<'a, Ad>, Option<&'a Item>);

/// All ads of now, by their ids: as the data set has them, or as they were changed since.
fn ads_of<'a>(publication: &Publication<'a>) -> Vec<AdOfItem<'a>> {
    let dataset = publication.dataset;
    let items: HashMap<&str, &Item> = dataset.items.iter().map(|item| (item.id.as_str(), item)).collect();
    let live: HashMap<&AdId, &Content> = publication.live.0.iter().map(|ad| (&ad.id, &ad.content)).collect();
    let as_written = dataset.ads.iter().filter_map(|ad| {
        let ad = match live.get(&ad.id) {
            None | Some(Content::AsBuilt) => Cow::Borrowed(ad),
            Some(Content::Patched(patch)) => {
                let mut ad = ad.clone();
                patch_attributes(&mut ad.attributes, patch);
                Cow::Owned(ad)
            }
            Some(Content::Is(_) | Content::Deleted) => return None,
        };
        let item = items.get(ad.item.as_str()).copied();
        Some((ad, item))
    });
    let changed = publication.live.0.iter().filter_map(|ad| match &ad.content {
        Content::Is(promoted) => Some((Cow::Borrowed(&promoted.ad), Some(&promoted.item))),
        Content::AsBuilt | Content::Deleted | Content::Patched(_) => None,
    });
    let mut all: Vec<_> = as_written.chain(changed).collect();
    all.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
    all
}

/// Embeds every active ad, in the order of their ids; with how many others there are.
fn embed(
    publication: &Publication<'_>,
    all: &[AdOfItem<'_>],
    observe: &mut dyn FnMut(Step) -> ControlFlow<()>,
) -> anyhow::Result<(Vec<ShardAd>, u64)> {
    let active: Vec<_> = all.iter().filter(|(ad, _)| ad.is_active()).collect();
    let mut embedded: Vec<ShardAd> = Vec::with_capacity(active.len());
    for (batch, ads) in active.chunks(EMBED_ROWS).enumerate() {
        let promoted = ads
            .iter()
            .map(|(ad, item)| item.with_context(|| format!("ad {} has no item", ad.id)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let embeddings = publication.model.embed_items(&promoted)?;
        let ads_of = ads.iter().zip(embeddings);
        embedded.extend(ads_of.map(|((ad, _), embedding)| ShardAd { ad: ad.clone().into_owned(), embedding }));
        if observe(Step::Ads((batch * EMBED_ROWS + ads.len()) as u64, active.len() as u64)).is_break() {
            bail!("publication was broken off");
        }
    }
    Ok((embedded, (all.len() - active.len()) as u64))
}

/// The kind of every attribute; one name has one kind in all ads. The well-known ones are there without any ad too: a filter
/// may ask for them, and a live ad may have them.
fn attribute_kinds(
    publication: &Publication<'_>,
    ads: &[AdOfItem<'_>],
) -> anyhow::Result<BTreeMap<Box<str>, AttributeKind>> {
    let mut kinds: BTreeMap<Box<str>, _> = well_known().map(|(name, kind)| (name.into(), kind)).collect();
    let changed: HashSet<&AdId> = publication.live.0.iter().map(|ad| &ad.id).collect();
    for (ad, _) in ads {
        attribute_schema::check(&ad.attributes).with_context(|| {
            let remedy =
                if changed.contains(&ad.id) { ", changed on a node: put it again or delete it there" } else { "" };
            format!("ad {}{remedy}", ad.id)
        })?;
        for (name, value) in &ad.attributes {
            let kind = Attribute::kind(value);
            if *kinds.entry(name.clone()).or_insert(kind) != kind {
                bail!("attribute {name} of ad {} is of another kind than in other ads", ad.id);
            }
        }
    }
    Ok(kinds)
}

/// `g-<date>.<n>`, the first that is not there and not taken.
fn next_id(publication: &Publication<'_>) -> anyhow::Result<(GenerationId, i64)> {
    let generations = publication.generations;
    fs::create_dir_all(generations).with_context(|| format!("cannot make {}", generations.display()))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    let created_at_ms = now.as_millis() as i64;
    let date = jiff::Timestamp::from_millisecond(created_at_ms)?.strftime("%Y-%m-%d").to_string();
    for number in 1..100_000 {
        let id = GenerationId::new(&format!("g-{date}.{number}"))?;
        if !generations.join(id.as_str()).exists() && !publication.taken.contains(&id) {
            return Ok((id, created_at_ms));
        }
    }
    bail!("{} holds too many generations of {date}", generations.display())
}

fn published_file(dir: &Path, path: &Path) -> anyhow::Result<PublishedFile> {
    let full = dir.join(path);
    let (sha256, bytes) = Digest::of_reader(File::open(&full)?).with_context(|| full.display().to_string())?;
    Ok(PublishedFile { path: path.to_string_lossy().into_owned(), bytes, sha256 })
}
