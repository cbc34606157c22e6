//! The way up and down again, over a store in memory and over one of files, and all that may go wrong on it.

use std::collections::BTreeMap;
use std::fs;

use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use tempfile::TempDir;
use turret_retrieval::digest::Digest;
use turret_retrieval::generation::{BuiltRecall, File, MANIFEST_FORMAT, Metric, Versions};
use turret_retrieval::ids::EncoderVersion;
use turret_retrieval::partitioning::Partitioning;
use turret_retrieval::revision::Revision;

use super::*;
use crate::generation::MANIFEST;

/// Prefix of every depot here.
const PREFIX: &str = "ads/generations";
const GO_ON: Watch<'static> = &|_| ControlFlow::Continue(());

/// A depot over a store of a test, with a cache and a place to write generations.
struct World {
    depot: Depot,
    dir: TempDir,
}

impl World {
    /// One in memory, and one of files.
    fn each() -> [Self; 2] {
        [Self::in_memory(), Self::of_files()]
    }

    fn in_memory() -> Self {
        Self::over(tempfile::tempdir().unwrap(), Arc::new(InMemory::new()))
    }

    fn of_files() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bucket = dir.path().join("bucket");
        fs::create_dir_all(&bucket).unwrap();
        let objects = LocalFileSystem::new_with_prefix(&bucket).unwrap().with_fsync(true);
        Self::over(dir, Arc::new(objects))
    }

    fn over(dir: TempDir, objects: Arc<dyn ObjectStore>) -> Self {
        let offload = Offload::new("test", THREADS, QUEUE).unwrap();
        let store = Store::over(objects, PREFIX, offload.clone());
        let cache = Cache::new(&dir.path().join("cache"));
        Self {
            depot: Depot {
                kept: Kept::Store { store, cache, one_at_a_time: Arc::default() },
                offload,
                current: Arc::default(),
            },
            dir,
        }
    }

    fn store(&self) -> &Store {
        self.depot.store().unwrap()
    }

    fn cached(&self, id: &str) -> PathBuf {
        self.dir.path().join("cache").join(id)
    }

    /// Writes a generation to disk.
    fn write(&self, id: &str, created_at_ms: i64, files: &[(&str, Vec<u8>)]) -> Generation {
        let dir = self.dir.path().join(format!("written-{created_at_ms}")).join(id);
        for (path, bytes) in files {
            fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
            fs::write(dir.join(path), bytes).unwrap();
        }
        fs::write(dir.join(MANIFEST), serde_json::to_vec(&manifest(id, created_at_ms, files)).unwrap()).unwrap();
        Generation::open(&dir).unwrap()
    }

    async fn put(&self, generation: &Generation) -> Result<(), DepotError> {
        self.store().put(generation, GO_ON).await
    }

    async fn fetch(&self, id: &str) -> Result<Generation, DepotError> {
        self.depot.fetch(&id_of(id), Wanted::Everything, GO_ON).await
    }

    fn object(&self, path: &str) -> object_store::path::Path {
        object_store::path::Path::from(format!("{PREFIX}/{path}"))
    }

    async fn overwrite(&self, path: &str, bytes: Vec<u8>) {
        self.store().objects.put(&self.object(path), bytes.into()).await.unwrap();
    }

    async fn read(&self, path: &str) -> Vec<u8> {
        self.store().objects.get(&self.object(path)).await.unwrap().bytes().await.unwrap().to_vec()
    }

    async fn remove(&self, path: &str) {
        self.store().objects.delete(&self.object(path)).await.unwrap();
    }
}

fn id_of(id: &str) -> GenerationId {
    GenerationId::new(id).unwrap()
}

/// Three small files, one of them empty.
fn small() -> Vec<(&'static str, Vec<u8>)> {
    vec![("model/tensors", vec![7; 1_000]), ("shards/0000.shard", Vec::new()), ("users/0000.users", vec![1, 2, 3])]
}

fn manifest(id: &str, created_at_ms: i64, files: &[(&str, Vec<u8>)]) -> Manifest {
    let file = |(path, bytes): &(&str, Vec<u8>)| File {
        path: (*path).to_owned(),
        bytes: bytes.len() as u64,
        sha256: Digest::of(bytes),
    };
    Manifest {
        recall: BuiltRecall { k: 1, probes: 0, recall: 1.0 },
        calibrations: vec![None],
        ads_until: Revision::NONE,
        format: MANIFEST_FORMAT,
        id: id_of(id),
        created_at_ms,
        versions: Versions {
            encoder: EncoderVersion::new("enc-1").unwrap(),
            head: "head-1".into(),
            ad_tower: "tower-1".into(),
            index: "index-1".into(),
            feature_schema: Digest::of(b"schema"),
        },
        dimension: 8,
        metric: Metric::InnerProduct,
        shard_ads: vec![1],
        partitioning: Partitioning::Hash,
        partition_users: vec![1],
        attributes: BTreeMap::new(),
        files: files.iter().map(file).collect(),
    }
}

#[tokio::test]
async fn what_was_put_is_fetched_whole_and_in_parts() {
    // Of several pieces and parts, and no multiple of them.
    let mut state = 1_u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let large: Vec<u8> = (0..2 * upload::PART_BYTES + 12_345).map(|_| random()).collect();
    let mut files = small();
    files.push(("shards/0001.shard", large));
    for world in World::each() {
        let depot = &world.depot;
        world.put(&world.write("g-1", 1, &files)).await.unwrap();
        let error = depot.current().await.unwrap_err().to_string();
        assert!(error.contains("ads/generations/CURRENT: no generation is published here"), "{error}");
        depot.make_current(&id_of("g-1")).await.unwrap();
        assert_eq!(depot.current().await.unwrap(), id_of("g-1"));
        assert_eq!(depot.published().await.unwrap(), [id_of("g-1")]);

        let parts = ["model/".to_owned(), "users/0000".to_owned()];
        let part = depot.fetch(&id_of("g-1"), Wanted::Parts(&parts), GO_ON).await.unwrap();
        assert_eq!(part.dir, world.cached("g-1"));
        assert!(part.verify("model/").is_ok() && part.verify("users/").is_ok());
        assert!(!part.dir.join("shards").exists(), "what nobody wants stays where it is");

        // A copy that is larger now is completed.
        let told = std::sync::Mutex::new(Vec::new());
        let watch = |progress: Progress| {
            told.lock().unwrap().push(progress);
            ControlFlow::Continue(())
        };
        let whole = depot.fetch(&id_of("g-1"), Wanted::Everything, &watch).await.unwrap();
        for (path, bytes) in &files {
            assert!(fs::read(whole.dir.join(path)).unwrap() == *bytes, "{path}");
        }
        let told = told.into_inner().unwrap();
        let bytes_total = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        assert!(told.is_sorted_by_key(|progress| progress.bytes), "{told:?}");
        assert_eq!(told.first(), Some(&Progress { bytes: 1_003, bytes_total }), "what was there is not copied again");
        assert_eq!(told.last(), Some(&Progress { bytes: bytes_total, bytes_total }));
        assert!(!world.cached("g-1.tmp").exists());
    }
}

#[tokio::test]
async fn a_whole_copy_is_used_again_and_a_rotten_one_is_made_good() {
    for world in World::each() {
        world.put(&world.write("g-1", 1, &small())).await.unwrap();
        let first = world.fetch("g-1").await.unwrap();
        fs::write(first.dir.join("model/tensors"), vec![8; 1_000]).unwrap();
        let mended = world.fetch("g-1").await.unwrap();
        assert_eq!(fs::read(mended.dir.join("model/tensors")).unwrap(), [7; 1_000]);
        // There is nothing to copy it from any more.
        world.remove("g-1/model/tensors").await;
        assert_eq!(world.fetch("g-1").await.unwrap().dir, first.dir);
    }
}

/// Spoils a published generation, which must be refused with `says`, leave no copy, and be fetched once it is whole again.
async fn check(path: &str, spoil: impl Fn(Vec<u8>) -> Option<Vec<u8>>, says: &str) {
    for world in World::each() {
        world.put(&world.write("g-1", 1, &small())).await.unwrap();
        let whole = world.read(path).await;
        match spoil(whole.clone()) {
            Some(bytes) => world.overwrite(path, bytes).await,
            None => world.remove(path).await,
        }
        let error = world.fetch("g-1").await.err().unwrap();
        assert!(error.to_string().contains(says), "{path}: {error}");
        assert!(error.to_string().contains(path), "{path}: {error}");
        assert!(!error.is_retryable(), "{error:?}");
        assert!(!world.cached("g-1").exists(), "{path}: no copy of {says}");
        world.overwrite(path, whole).await;
        world.fetch("g-1").await.unwrap();
    }
}

#[tokio::test]
async fn a_file_that_is_not_the_published_one_is_named_and_not_kept() {
    let tensors = "g-1/model/tensors";
    check(tensors, |bytes| Some(bytes[..500].to_vec()), "500 bytes where 1000 are expected").await;
    check(tensors, |_| Some(Vec::new()), "0 bytes where 1000 are expected").await;
    check(tensors, |bytes| Some([bytes, vec![7]].concat()), "1001 bytes where 1000 are expected").await;
    check(tensors, |_| None, "not found").await;
    let flip = |mut bytes: Vec<u8>| {
        bytes[500] ^= 1;
        Some(bytes)
    };
    check(tensors, flip, "is not the file that was published").await;
    check("g-1/shards/0000.shard", |_| Some(vec![1]), "1 bytes where 0 are expected").await;
}

#[tokio::test]
async fn a_manifest_that_cannot_be_believed_is_refused() {
    let path = "g-1/manifest.json";
    let change = |change: fn(&mut Manifest)| {
        move |text: Vec<u8>| {
            let mut manifest = serde_json::from_slice(&text).unwrap();
            change(&mut manifest);
            Some(serde_json::to_vec(&manifest).unwrap())
        }
    };
    check(path, |_| None, "generation g-1 is not published here").await;
    check(path, |text| Some(text[..50].to_vec()), "EOF").await;
    check(path, |_| Some(vec![b' '; 5 << 20]), "is larger than").await;
    check(path, change(|manifest| manifest.id = id_of("g-2")), "of generation g-2 where that of g-1 is expected").await;
    check(path, change(|manifest| manifest.files[0].path = "../x".into()), "must stay inside").await;
    for name in ["manifest.json", "a//b", "./a", "a/", "users/0000.users"] {
        let rename = |text: Vec<u8>| {
            let mut manifest: Manifest = serde_json::from_slice(&text).unwrap();
            manifest.files[0].path = name.to_owned();
            Some(serde_json::to_vec(&manifest).unwrap())
        };
        check(path, rename, "is not the plain path of one file").await;
    }
}

#[tokio::test]
async fn a_name_that_is_none_is_refused() {
    for world in World::each() {
        for name in ["", "../elsewhere", ".hidden", "a/b", "g-1.tmp", "g 1", &"g".repeat(500)] {
            world.overwrite("CURRENT", name.as_bytes().to_vec()).await;
            let error = world.depot.current().await.unwrap_err().to_string();
            assert!(error.contains("names no generation"), "{name}: {error}");
        }
        world.overwrite("CURRENT", vec![b'g'; 5_000]).await;
        assert!(world.depot.current().await.unwrap_err().to_string().contains("is larger than"));
        world.overwrite("CURRENT", b"g-1\n".to_vec()).await;
        assert_eq!(world.depot.current().await.unwrap(), id_of("g-1"));
        let error = world.fetch("g-1").await.err().unwrap();
        assert!(matches!(error, DepotError::NotPublished { .. }), "{error}");
        assert!(!world.cached("g-1").exists());
    }
}

#[tokio::test]
async fn an_upload_that_is_broken_off_publishes_nothing_and_may_be_tried_again() {
    for world in World::each() {
        let generation = world.write("g-1", 1, &small());
        // All files are there, and the manifest is not.
        let at_the_end = |progress: Progress| {
            if progress.bytes == progress.bytes_total { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let broken_off = world.store().put(&generation, &at_the_end).await;
        assert!(matches!(broken_off, Err(DepotError::BrokenOff)), "{broken_off:?}");
        assert_eq!(world.read("g-1/users/0000.users").await, [1, 2, 3]);
        assert_eq!(world.depot.published().await.unwrap(), []);
        assert_eq!(world.store().taken().await.unwrap(), [id_of("g-1")], "nobody else takes the id meanwhile");
        assert!(matches!(world.depot.current().await, Err(DepotError::NonePublished { .. })));
        let early = world.depot.make_current(&id_of("g-1")).await;
        assert!(matches!(early, Err(DepotError::NotPublished { .. })), "{early:?}");
        let other = world.put(&world.write("g-1", 2, &small())).await;
        assert!(matches!(other, Err(DepotError::Taken { .. })), "{other:?}");
        world.put(&generation).await.unwrap();
        assert_eq!(world.depot.published().await.unwrap(), [id_of("g-1")]);
    }
}

#[tokio::test]
async fn an_id_is_published_once() {
    for world in World::each() {
        let first = world.write("g-1", 1, &small());
        world.put(&first).await.unwrap();
        for again in [&first, &world.write("g-1", 2, &[("model/tensors", vec![9; 10])])] {
            let refused = world.put(again).await;
            assert!(matches!(refused, Err(DepotError::Taken { .. })), "{refused:?}");
        }
        let kept = world.fetch("g-1").await.unwrap();
        assert_eq!(kept.manifest, first.manifest);
    }
}

#[tokio::test]
async fn a_file_that_has_changed_since_it_was_written_is_not_published() {
    for (path, bytes, says) in [
        ("model/tensors", vec![8; 1_000], "is not the file that was published"),
        ("model/tensors", vec![7; 999], "999 bytes where 1000 are expected"),
    ] {
        let world = World::in_memory();
        let generation = world.write("g-1", 1, &small());
        fs::write(generation.dir.join(path), bytes).unwrap();
        let error = world.put(&generation).await.unwrap_err().to_string();
        assert!(error.contains(says) && error.contains(path), "{error}");
        assert_eq!(world.depot.published().await.unwrap(), []);
    }
}

#[tokio::test]
async fn a_copy_that_is_broken_off_goes_on_where_it_was() {
    let world = World::in_memory();
    world.put(&world.write("g-1", 1, &small())).await.unwrap();
    let after_one =
        |progress: Progress| if progress.bytes > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let broken_off = world.depot.fetch(&id_of("g-1"), Wanted::Everything, &after_one).await;
    assert!(matches!(broken_off.err(), Some(DepotError::BrokenOff)));
    assert!(!world.cached("g-1").exists());
    world.remove("g-1/model/tensors").await;
    let whole = world.fetch("g-1").await.unwrap();
    assert_eq!(fs::read(whole.dir.join("model/tensors")).unwrap(), [7; 1_000], "it was there already");
}

#[tokio::test]
async fn the_newest_copies_are_kept_and_the_one_in_use() {
    let world = World::in_memory();
    for number in 1..=4 {
        let id = format!("g-{number}");
        world.put(&world.write(&id, number, &small())).await.unwrap();
        world.fetch(&id).await.unwrap();
    }
    fs::create_dir_all(world.cached("g-0.tmp/model")).unwrap();
    let kept = || {
        let mut names: Vec<String> = fs::read_dir(world.dir.path().join("cache"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    world.depot.forget_old(&[id_of("g-2")]).await.unwrap();
    assert_eq!(kept(), ["g-2", "g-4"]);
    world.fetch("g-3").await.unwrap();
    world.depot.forget_old(&[id_of("g-2"), id_of("g-3")]).await.unwrap();
    assert_eq!(kept(), ["g-2", "g-3"]);
}

#[tokio::test]
async fn a_directory_is_read_where_it_lies() {
    let world = World::in_memory();
    let one = world.write("g-1", 1, &small());
    let dir = one.dir.parent().unwrap();
    let depot = Depot::open(&Place::Directory(dir.to_owned()), &world.dir.path().join("cache")).unwrap();
    let none = depot.current().await.unwrap_err().to_string();
    assert!(none.contains("no generation is published here"), "{none}");
    depot.make_current(&id_of("g-1")).await.unwrap();
    assert!(depot.make_current(&id_of("g-2")).await.is_err());
    assert_eq!(depot.current().await.unwrap(), id_of("g-1"));
    assert_eq!(depot.published().await.unwrap(), [id_of("g-1")]);
    assert_eq!(depot.manifest(&id_of("g-1")).await.unwrap(), *one.manifest);
    assert_eq!(depot.fetch(&id_of("g-1"), Wanted::Everything, GO_ON).await.unwrap().dir, one.dir);
    depot.forget_old(&[]).await.unwrap();
    assert!(one.dir.exists() && depot.store().is_none());
    assert!(!world.dir.path().join("cache").exists(), "nothing is copied");
}

#[test]
fn copying_can_be_a_task() {
    fn task<T: Send>(_: T) {}
    let world = World::in_memory();
    let (id, generation) = (id_of("g-1"), world.write("g-1", 1, &small()));
    task(world.depot.fetch(&id, Wanted::Everything, GO_ON));
    task(world.store().put(&generation, GO_ON));
    task(world.depot.published());
}
