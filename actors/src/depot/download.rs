//! A generation from a store into the cache: one pipeline of pieces, whatever the number and the size of the files.
//!
//! Pieces are asked for ahead and written in order, so a piece is bounded in time by the store's client, and all of them
//! in memory by their number.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Component, Path};

use futures_util::StreamExt;
use turret_retrieval::digest::Digester;
use turret_retrieval::generation::{File, Manifest};
use turret_retrieval::ids::GenerationId;

use super::cache::{Cache, Copied};
use super::store::Store;
use super::{DepotError, Progress, Wanted, Watch, plain_id};
use crate::generation::{Generation, MANIFEST};

/// The bytes of one request.
pub(super) const PIECE_BYTES: u64 = 8 << 20;
/// Pieces that are asked for at once.
const PIECES_AT_ONCE: usize = 8;

/// Copies what the cache lacks of `wanted`, and opens the copy.
pub(super) async fn fetch(
    store: &Store,
    cache: &Cache,
    id: &GenerationId,
    wanted: Wanted<'_>,
    watch: Watch<'_>,
) -> Result<Generation, DepotError> {
    let (manifest, text) = store.manifest_and_text(id).await?;
    check_paths(&manifest, &store.name_of(id, MANIFEST))?;
    let files: Vec<File> = manifest.files.iter().filter(|file| wanted.holds(&file.path)).cloned().collect();
    let bytes_total = files.iter().map(|file| file.bytes).fold(0, u64::saturating_add);
    let prepared = {
        let (cache, id, text) = (cache.clone(), id.clone(), text.clone());
        store.offload.run(move || cache.prepare(&id, &text, files)).await??
    };
    let dir = match prepared {
        Copied::Whole(dir) => dir,
        Copied::Missing(growing, missing) => {
            copy(store, id, &growing, missing, bytes_total, watch).await?;
            let (cache, id) = (cache.clone(), id.clone());
            store.offload.run(move || cache.finish(&id, &text)).await??
        }
    };
    Ok(store.offload.run(move || Generation::open(&dir)).await??)
}

async fn copy(
    store: &Store,
    id: &GenerationId,
    dir: &Path,
    missing: Vec<File>,
    bytes_total: u64,
    watch: Watch<'_>,
) -> Result<(), DepotError> {
    let lacking = missing.iter().map(|file| file.bytes).fold(0, u64::saturating_add);
    let mut bytes = bytes_total.saturating_sub(lacking);
    let asked = missing.into_iter().flat_map(pieces).map(|piece| async move {
        let bytes = store.piece(id, &piece.file, piece.from, piece.to).await?;
        Ok::<_, DepotError>((piece, bytes))
    });
    let mut arriving = futures_util::stream::iter(asked).buffered(PIECES_AT_ONCE);
    let mut landing = None;
    loop {
        if watch(Progress { bytes, bytes_total }).is_break() {
            return Err(DepotError::BrokenOff);
        }
        let Some(arrived) = arriving.next().await else { return Ok(()) };
        let (piece, arrived) = arrived?;
        bytes += arrived.len() as u64;
        let (is_last, file) = (piece.to == piece.file.bytes, piece.file);
        let (path, object) = (dir.join(&file.path), store.name_of(id, &file.path));
        let landed = move || {
            let disk = |source| DepotError::Disk { path: path.clone(), source };
            let mut landing = landing.map_or_else(|| Landing::begin(&path), Ok).map_err(disk)?;
            landing.file.write_all(&arrived).map_err(disk)?;
            landing.digester.update(&arrived);
            if !is_last {
                return Ok(Some(landing));
            }
            let found = landing.digester.finish();
            if found != file.sha256 {
                return Err(DepotError::Digest { object, expected: file.sha256, found });
            }
            landing.file.sync_all().map_err(disk)?;
            Ok(None)
        };
        landing = store.offload.run(landed).await??;
    }
}

/// A file that is being written.
struct Landing {
    file: fs::File,
    digester: Digester,
}

impl Landing {
    fn begin(path: &Path) -> std::io::Result<Self> {
        Ok(Self { file: fs::File::create(path)?, digester: Digester::default() })
    }
}

/// A part of a file, of one request.
struct Piece {
    file: File,
    from: u64,
    to: u64,
}

/// The pieces of a file in order; one, of no bytes, where the file is empty.
fn pieces(file: File) -> impl Iterator<Item = Piece> {
    let count = file.bytes.div_ceil(PIECE_BYTES).max(1);
    (0..count).map(move |number| {
        let from = number * PIECE_BYTES;
        Piece { from, to: file.bytes.min(from + PIECE_BYTES), file: file.clone() }
    })
}

/// Whether every file has a place of its own below the generation's directory: the manifest is somebody else's word.
fn check_paths(manifest: &Manifest, object: &str) -> Result<(), DepotError> {
    let mut seen = BTreeSet::new();
    let is_plain = |path: &str| {
        // Not `Path` alone, which reads `a//b` and `a/./b` as `a/b`.
        let parts = Path::new(path).components().filter(|part| matches!(part, Component::Normal(_))).count();
        parts == path.split('/').count() && path != MANIFEST
    };
    for file in &manifest.files {
        if !is_plain(&file.path) || !seen.insert(file.path.as_str()) {
            let rule = format!("files.path: {:?} is not the plain path of one file", file.path);
            return Err(DepotError::Malformed { object: object.to_owned(), rule });
        }
    }
    match plain_id(manifest.id.as_str()) {
        Some(_) => Ok(()),
        None => Err(DepotError::Malformed { object: object.to_owned(), rule: "id: is no plain name".to_owned() }),
    }
}
