//! A generation from this machine into a store: its id is claimed, its files go up, and its manifest last.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt;
use object_store::{MultipartUpload, ObjectStoreExt};
use turret_retrieval::digest::{Digest, Digester};
use turret_retrieval::generation::File;

use super::store::Store;
use super::{DepotError, Progress, Watch, plain_id};
use crate::generation::{Generation, MANIFEST, MANIFEST_BYTES_MAX};

/// Files that go up at once, each with one part on its way.
const FILES_AT_ONCE: usize = 4;
/// The bytes of a part; a file of no more goes up in one request.
pub(super) const PART_BYTES: u64 = 8 << 20;
/// More parts of one object than this are not taken by S3; of a larger file the parts are larger.
const PARTS_MAX: u64 = 10_000;

impl Store {
    /// Copies a generation into the store, where it is published from then on; `CURRENT` is left as it is.
    ///
    /// The id is claimed first, so that of two machines that publish under one id the second is refused before it has
    /// overwritten anything. What a broken-off copy leaves is read by nobody; the same generation may be put again.
    ///
    /// # Errors
    /// When the id is taken, a file is not what the manifest says or cannot be read, or `watch` breaks off: the
    /// generation is not published then. Retryable, when the store cannot be asked.
    pub async fn put(&self, generation: &Generation, watch: Watch<'_>) -> Result<(), DepotError> {
        let id = &generation.manifest.id;
        let manifest = generation.dir.join(MANIFEST);
        if plain_id(id.as_str()).is_none() {
            let object = manifest.display().to_string();
            return Err(DepotError::Malformed { object, rule: "id: is no plain name".to_owned() });
        }
        let text = self.offload.run(move || read(&manifest, MANIFEST_BYTES_MAX)).await??;
        self.claim(id, &Digest::of(&text).to_string()).await?;
        let taken = || DepotError::Taken { id: id.clone() };
        if self.is_published(id).await? {
            return Err(taken());
        }
        let files = &generation.manifest.files;
        let bytes_total = files.iter().map(|file| file.bytes).fold(0, u64::saturating_add);
        let tally = Tally { bytes: AtomicU64::new(0), bytes_total, watch };
        let sent = files.iter().cloned().map(|file| self.put_file(generation, file, &tally));
        let mut sent = futures_util::stream::iter(sent).buffer_unordered(FILES_AT_ONCE);
        let mut done = Ok(());
        // After a failure those on their way are awaited too, so that they tidy up after themselves.
        while let Some(file) = sent.next().await {
            if file.is_err() && done.is_ok() {
                tally.stop();
                done = file;
            }
        }
        done?;
        if self.create(&self.object(id, MANIFEST), &text).await? { Ok(()) } else { Err(taken()) }
    }

    async fn put_file(&self, generation: &Generation, file: File, tally: &Tally<'_>) -> Result<(), DepotError> {
        tally.add(0)?;
        let path = self.object(&generation.manifest.id, &file.path);
        let refused = |source| self.refused(&path, source);
        let dir = generation.dir.clone();
        let source = self.offload.run(move || Source::open(&dir, file)).await??;
        if source.left <= PART_BYTES {
            let (_, part) = self.next_part(source).await?;
            let bytes = part.len() as u64;
            self.objects.put(&path, part.into()).await.map_err(refused)?;
            return tally.add(bytes);
        }
        let mut upload = self.objects.put_multipart(&path).await.map_err(refused)?;
        let sent = async {
            let mut source = source;
            while source.left > 0 {
                let (rest, part) = self.next_part(source).await?;
                source = rest;
                let bytes = part.len() as u64;
                upload.put_part(part.into()).await.map_err(refused)?;
                tally.add(bytes)?;
            }
            Ok(())
        };
        match sent.await {
            Ok(()) => upload.complete().await.map(drop).map_err(refused),
            Err(error) => {
                // The parts are of no use; the error is what matters.
                drop(upload.abort().await);
                Err(error)
            }
        }
    }

    /// Reads the next part, and compares the digest after the last.
    async fn next_part(&self, source: Source) -> Result<(Source, Vec<u8>), DepotError> {
        self.offload.run(move || source.next_part()).await?
    }
}

/// A file that is being read.
struct Source {
    opened: fs::File,
    digester: Digester,
    left: u64,
    part_bytes: u64,
    path: PathBuf,
    file: File,
}

impl Source {
    fn open(dir: &Path, file: File) -> Result<Self, DepotError> {
        let path = dir.join(&file.path);
        let disk = |source| DepotError::Disk { path: path.clone(), source };
        let opened = fs::File::open(&path).map_err(disk)?;
        let found = opened.metadata().map_err(disk)?.len();
        if found != file.bytes {
            return Err(DepotError::Length { object: path.display().to_string(), expected: file.bytes, found });
        }
        let part_bytes = part_bytes(file.bytes);
        Ok(Self { opened, digester: Digester::default(), left: found, part_bytes, path, file })
    }

    fn next_part(mut self) -> Result<(Self, Vec<u8>), DepotError> {
        let mut part = vec![0; self.left.min(self.part_bytes) as usize];
        self.opened.read_exact(&mut part).map_err(|source| DepotError::Disk { path: self.path.clone(), source })?;
        self.digester.update(&part);
        self.left -= part.len() as u64;
        if self.left == 0 {
            let (found, expected) = (self.digester.clone().finish(), self.file.sha256.clone());
            if found != expected {
                return Err(DepotError::Digest { object: self.path.display().to_string(), expected, found });
            }
        }
        Ok((self, part))
    }
}

/// The bytes of each part of a file of `bytes`, a multiple of [`PART_BYTES`].
fn part_bytes(bytes: u64) -> u64 {
    bytes.div_ceil(PARTS_MAX).next_multiple_of(PART_BYTES).max(PART_BYTES)
}

/// How far all files together are.
struct Tally<'a> {
    bytes: AtomicU64,
    bytes_total: u64,
    watch: Watch<'a>,
}

impl Tally<'_> {
    /// No file is to begin any more, and none to go on.
    const STOPPED: u64 = u64::MAX;

    fn add(&self, bytes: u64) -> Result<(), DepotError> {
        let add = |before: u64| (before != Self::STOPPED).then(|| before.saturating_add(bytes));
        let before = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        let before = before.map_err(|_| DepotError::BrokenOff)?;
        let progress = Progress { bytes: before.saturating_add(bytes), bytes_total: self.bytes_total };
        if (self.watch)(progress).is_break() { Err(DepotError::BrokenOff) } else { Ok(()) }
    }

    fn stop(&self) {
        self.bytes.store(Self::STOPPED, Ordering::Relaxed);
    }
}

fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, DepotError> {
    let disk = |source| DepotError::Disk { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    fs::File::open(path).map_err(disk)?.take(bytes_max).read_to_end(&mut bytes).map_err(disk)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_few_enough_and_of_one_size() {
        for (bytes, part) in [(0, 1), (PART_BYTES, 1), (PARTS_MAX * PART_BYTES, 1), (PARTS_MAX * PART_BYTES + 1, 2)] {
            assert_eq!(part_bytes(bytes), part * PART_BYTES, "{bytes}");
            assert!(bytes.div_ceil(part_bytes(bytes)) <= PARTS_MAX);
        }
    }
}
