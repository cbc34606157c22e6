//! What holds for every file that is opened as a shard, whoever made it up: a test and a fuzz target share it.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use turret_index::{
    Backend, IndexSettings, OpenError, Opened, Origin, ReadError, Search, ShardAd, ShardChange, ShardContent,
    ShardIndex,
};
use turret_retrieval::ids::AdId;
use turret_retrieval::item::{Ad, Attribute};
use turret_retrieval::revision::Revision;
use turret_retrieval::vector::UnitVector;
use xxhash_rust::xxh3::xxh3_64;

pub(crate) const DIMENSION: usize = 4;
const GENERATION: &str = "g-1";
const HEADER_BYTES: usize = 64;
const ENTRY_BYTES: usize = 32;

pub(crate) fn settings() -> IndexSettings {
    IndexSettings { backend: Backend::DiskAnn, degree: 8, build_list: 16, ..IndexSettings::default() }
}

fn unit(seed: u32) -> UnitVector {
    let component = |at: u32| f64::from(seed * 7 + at * 13 + 1).sin() as f32;
    UnitVector::normalize((0..DIMENSION as u32).map(component).collect()).expect("no direction is nothing")
}

fn id(number: u32) -> AdId {
    AdId::from(u64::from(number))
}

fn ad(number: u32) -> ShardAd {
    let attributes = [
        ("advertiser_id", Attribute::Keyword(format!("adv{}", number % 3).into())),
        ("countries", Attribute::Keywords(vec!["BR".into(), format!("c{}", number % 5).into()])),
        ("min_age", Attribute::Number(f64::from(number % 7))),
    ];
    let attributes = attributes.into_iter().map(|(name, value)| (name.into(), value)).collect();
    ShardAd { ad: Ad { id: id(number), item: 1.into(), attributes }, embedding: unit(number) }
}

/// The file of a shard of which ads were replaced, paused and deleted.
pub(crate) fn sample() -> &'static [u8] {
    static SAMPLE: OnceLock<Vec<u8>> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let mut go_on = |_: _| ControlFlow::Continue(());
        let index =
            ShardIndex::build(DIMENSION, (0..24).map(ad).collect(), &settings(), &[], &mut go_on).expect("sound");
        let change = |number: u32, content, paused| ShardChange {
            id: id(number),
            content,
            content_at: Revision::from_bits(10 + u64::from(number)),
            paused,
            paused_at: Revision::from_bits(5),
        };
        let is = |number| ShardContent::Is(Box::new(ad(number)));
        let changes = vec![
            change(3, is(3), false),
            change(4, ShardContent::Nothing, false),
            change(5, ShardContent::AsBuilt, true),
            change(40, is(40), false),
            change(41, ShardContent::AsBuilt, true),
        ];
        index.apply(changes).expect("sound");
        let path = path();
        index.snapshot(&path, GENERATION, Revision::from_bits(60)).expect("the disk takes it");
        fs::read(&path).expect("it was written")
    })
}

/// A file of this process and thread.
fn path() -> PathBuf {
    let thread = format!("{:?}", std::thread::current().id());
    let digits: String = thread.chars().filter(char::is_ascii_digit).collect();
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    dir.join(format!("turret-snapshot-{}-{digits}", std::process::id()))
}

/// Opens `bytes` as a file, as a shard of another generation or dimension where these are given.
pub(crate) fn open_as(bytes: &[u8], generation: &str, dimension: usize) -> Result<Opened, OpenError> {
    let path = path();
    fs::write(&path, bytes).expect("the disk takes it");
    let origin = Origin { generation, dimension };
    let opened = ShardIndex::open(&path, &origin, &settings(), &Vec::new, &mut |_| ControlFlow::Continue(()));
    fs::remove_file(&path).expect("it was written");
    opened
}

/// Opens `bytes`: what opens answers, and an error is short and names the file.
pub(crate) fn check(bytes: &[u8]) -> Result<Opened, OpenError> {
    let opened = open_as(bytes, GENERATION, DIMENSION);
    match &opened {
        Ok(Opened { index, .. }) => {
            for query in [unit(1), unit(9)] {
                let search =
                    Search { vector: &query, baseline: None, k: 5, filter: None, crowding: None, exact: false };
                let found = index.search(&search).expect("it is a search");
                assert_eq!(found.ads.len(), 5.min(index.len() - index.stats().paused));
            }
            index
                .apply(vec![ShardChange {
                    id: id(3),
                    content: ShardContent::Nothing,
                    content_at: Revision::from_bits(u64::MAX),
                    paused: false,
                    paused_at: Revision::NONE,
                }])
                .expect("a deletion is always sound");
            drop(index.maintain());
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.len() < 2_000 && text.contains("turret-snapshot-"), "{text}");
            assert!(!matches!(error, OpenError::Read(ReadError::Io { .. } | ReadError::Stopped { .. })), "{text}");
        }
    }
    opened
}

/// Offsets of the sections and of their ends, by the table of sound bytes.
pub(crate) fn borders(bytes: &[u8]) -> Vec<usize> {
    let table = bytes[HEADER_BYTES..].chunks_exact(ENTRY_BYTES).take(number(bytes, 32, 4) as usize);
    table
        .flat_map(|entry| [number(entry, 8, 8), number(entry, 8, 8) + number(entry, 16, 8)])
        .map(|at| at as usize)
        .collect()
}

/// Makes length and checksums of changed bytes right again, as another program would, as far as their table goes.
pub(crate) fn seal(bytes: &mut [u8]) {
    if bytes.len() < HEADER_BYTES {
        return;
    }
    let length = bytes.len() as u64;
    bytes[24..32].copy_from_slice(&length.to_le_bytes());
    let sections = (number(bytes, 32, 4) as usize).min((bytes.len() - HEADER_BYTES) / ENTRY_BYTES);
    let end = HEADER_BYTES + sections * ENTRY_BYTES;
    for at in (HEADER_BYTES..end).step_by(ENTRY_BYTES) {
        let (offset, length) = (number(bytes, at + 8, 8) as usize, number(bytes, at + 16, 8) as usize);
        let Some(section) = offset.checked_add(length).and_then(|end| bytes.get(offset..end)) else { continue };
        let checksum = xxh3_64(section);
        bytes[at + 24..at + 32].copy_from_slice(&checksum.to_le_bytes());
    }
    bytes[40..48].fill(0);
    let checksum = xxh3_64(&bytes[..end]);
    bytes[40..48].copy_from_slice(&checksum.to_le_bytes());
}

/// Edits of the sample, four bytes each: where, what is done there, and with which byte.
pub(crate) fn edited(edits: &[u8]) -> Vec<u8> {
    let mut bytes = sample().to_vec();
    let (edits, _) = edits.as_chunks::<4>();
    for [low, high, what, with] in edits {
        let at = usize::from(u16::from_le_bytes([*low, *high])) % bytes.len().max(1);
        match what % 4 {
            0 => bytes[at] = *with,
            1 => bytes[at] ^= 1 << (with % 8),
            2 => bytes[at] = bytes[at].wrapping_add(*with),
            _ => bytes[at..].iter_mut().take(4).for_each(|byte| *byte = *with),
        }
    }
    bytes
}

fn number(bytes: &[u8], at: usize, width: usize) -> u64 {
    bytes[at..at + width].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
