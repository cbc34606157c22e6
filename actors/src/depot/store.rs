//! A depot in an object store: what lies where, and how it is asked.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    BackoffConfig, GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig,
};
use turret_retrieval::generation::{File, Manifest};
use turret_retrieval::ids::GenerationId;
use url::Position;

use super::place::{StoreKind, StoreUrl};
use super::{DepotError, plain_id};
use crate::generation::{CURRENT, MANIFEST, MANIFEST_BYTES_MAX};
use crate::offload::Offload;

/// The object that says whose an id is: the digest of the manifest that its publication will end with.
const CLAIM: &str = "CLAIM";
/// A longer `CURRENT` or claim is none.
const NAME_BYTES_MAX: u64 = 1_024;
/// More generations than this below one prefix are refused; listing them is not free.
pub const GENERATIONS_MAX: usize = 10_000;
/// Questions of a few bytes that are asked at once.
const ASKED_AT_ONCE: usize = 8;

/// Generations in an object store, laid out as in a directory.
///
/// A broken request is asked again by the store's client: at most [`RETRIES_MAX`] times and for [`RETRY_TIME`]. A request
/// itself takes 30 s at most, 5 s of them to connect, unless the environment says otherwise.
#[derive(Clone)]
pub struct Store {
    pub(super) objects: Arc<dyn ObjectStore>,
    /// What blocks: the disk, and digests.
    pub(super) offload: Offload,
    /// Where the store begins, such as `s3://bucket`: for messages.
    root: String,
    prefix: Path,
}

/// How often a request is tried again.
pub const RETRIES_MAX: usize = 5;
/// For how long a request is tried again.
pub const RETRY_TIME: Duration = Duration::from_secs(60);

impl Store {
    /// The store at `url`; credentials and endpoint are those of the environment. Asks nothing of it yet.
    pub(super) fn open(url: &StoreUrl, offload: Offload) -> Result<Self, DepotError> {
        let refused = |source| DepotError::Store { object: url.to_string(), source };
        let prefix = Path::from_url_path(url.url.path()).map_err(|error| refused(error.into()))?;
        let (text, retry) = (url.url.as_str(), retry());
        let objects: Arc<dyn ObjectStore> = match url.kind {
            StoreKind::Files => Arc::new(LocalFileSystem::new().with_fsync(true)),
            StoreKind::S3 => {
                let builder = AmazonS3Builder::from_env().with_url(text).with_retry(retry);
                Arc::new(builder.build().map_err(refused)?)
            }
            StoreKind::Google => {
                let builder = GoogleCloudStorageBuilder::from_env().with_url(text).with_retry(retry);
                Arc::new(builder.build().map_err(refused)?)
            }
            StoreKind::Azure => {
                let builder = MicrosoftAzureBuilder::from_env().with_url(text).with_retry(retry);
                Arc::new(builder.build().map_err(refused)?)
            }
        };
        let root = url.url[..Position::BeforePath].to_owned();
        Ok(Self { objects, offload, root, prefix })
    }

    /// A store of a test.
    #[cfg(test)]
    pub(super) fn over(objects: Arc<dyn ObjectStore>, prefix: &str, offload: Offload) -> Self {
        Self { objects, offload, root: "test://depot".to_owned(), prefix: Path::from(prefix) }
    }

    /// The generation that `CURRENT` names.
    ///
    /// # Errors
    /// When none is published; retryable, when the store cannot be asked.
    pub async fn current(&self) -> Result<GenerationId, DepotError> {
        let object = self.prefix.clone().join(CURRENT);
        let Some(text) = self.small(&object, NAME_BYTES_MAX).await? else {
            return Err(DepotError::NonePublished { object: self.name(&object) });
        };
        let text = String::from_utf8_lossy(&text);
        let none = || DepotError::Malformed { object: self.name(&object), rule: "names no generation".to_owned() };
        plain_id(text.trim()).ok_or_else(none)
    }

    /// The checked manifest of a generation.
    ///
    /// # Errors
    /// When it is absent, not sound or of another generation; retryable, when the store cannot be asked.
    pub async fn manifest(&self, id: &GenerationId) -> Result<Manifest, DepotError> {
        self.manifest_and_text(id).await.map(|(manifest, _)| manifest)
    }

    /// The manifest, and its bytes.
    pub(super) async fn manifest_and_text(&self, id: &GenerationId) -> Result<(Manifest, Vec<u8>), DepotError> {
        let path = self.object(id, MANIFEST);
        let object = || self.name(&path);
        let text = self.small(&path, MANIFEST_BYTES_MAX).await?;
        let text = text.ok_or_else(|| DepotError::NotPublished { id: id.clone(), object: object() })?;
        let malformed = |error: serde_json::Error| DepotError::Malformed { object: object(), rule: error.to_string() };
        let manifest: Manifest = serde_json::from_slice(&text).map_err(malformed)?;
        manifest.check().map_err(|source| DepotError::Manifest { object: object(), source })?;
        if manifest.id != *id {
            return Err(DepotError::OtherId { object: object(), expected: id.clone(), found: manifest.id });
        }
        Ok((manifest, text))
    }

    /// Every id below the prefix, that of a publication under way or broken off too, by name.
    ///
    /// # Errors
    /// When there are more than [`GENERATIONS_MAX`]; retryable, when the store cannot be asked.
    pub async fn taken(&self) -> Result<Vec<GenerationId>, DepotError> {
        let listed = self.objects.list_with_delimiter(Some(&self.prefix)).await;
        let listed = listed.map_err(|source| self.refused(&self.prefix, source))?.common_prefixes;
        let mut ids: Vec<GenerationId> = listed.iter().filter_map(Path::filename).filter_map(plain_id).collect();
        if ids.len() > GENERATIONS_MAX {
            let rule = format!("holds more than {GENERATIONS_MAX} generations");
            return Err(DepotError::Malformed { object: self.name(&self.prefix), rule });
        }
        ids.sort();
        Ok(ids)
    }

    /// The generations that are whole, by name.
    ///
    /// # Errors
    /// As [`taken`](Self::taken).
    pub async fn published(&self) -> Result<Vec<GenerationId>, DepotError> {
        let looked_at = self.taken().await?.into_iter().map(async |id| {
            let whole = self.is_published(&id).await?;
            Ok(whole.then_some(id))
        });
        let found = futures_util::stream::iter(looked_at).buffered(ASKED_AT_ONCE);
        found.try_filter_map(async |id| Ok(id)).try_collect().await
    }

    /// Makes a published generation the current one.
    ///
    /// # Errors
    /// When it is not published; retryable, when the store cannot be asked.
    pub async fn make_current(&self, id: &GenerationId) -> Result<(), DepotError> {
        if !self.is_published(id).await? {
            return Err(DepotError::NotPublished { id: id.clone(), object: self.name_of(id, MANIFEST) });
        }
        let object = self.prefix.clone().join(CURRENT);
        let put = self.objects.put(&object, id.as_str().to_owned().into()).await;
        put.map(drop).map_err(|source| self.refused(&object, source))
    }

    /// Takes the id for the publication whose manifest has the digest `of`; that publication may take it again.
    pub(super) async fn claim(&self, id: &GenerationId, of: &str) -> Result<(), DepotError> {
        let path = self.object(id, CLAIM);
        if self.create(&path, of.as_bytes()).await? { Ok(()) } else { Err(DepotError::Taken { id: id.clone() }) }
    }

    /// Puts an object where there is none. False where there is another; the same bytes are what was asked for, be it
    /// that an earlier try succeeded and its answer was lost.
    pub(super) async fn create(&self, path: &Path, bytes: &[u8]) -> Result<bool, DepotError> {
        let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.objects.put_opts(path, bytes.to_vec().into(), create).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                match self.small(path, bytes.len() as u64).await {
                    Ok(there) => Ok(there.is_some_and(|there| there == bytes)),
                    // It is longer, so it is another.
                    Err(DepotError::Malformed { .. }) => Ok(false),
                    Err(error) => Err(error),
                }
            }
            Err(source) => Err(self.refused(path, source)),
        }
    }

    /// Whether a generation is whole: its manifest comes last.
    pub(super) async fn is_published(&self, id: &GenerationId) -> Result<bool, DepotError> {
        let path = self.object(id, MANIFEST);
        match self.objects.head(&path).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(source) => Err(self.refused(&path, source)),
        }
    }

    /// The bytes `from..to` of a published file, of which that many must come; the object must have the file's length.
    pub(super) async fn piece(
        &self,
        id: &GenerationId,
        file: &File,
        from: u64,
        to: u64,
    ) -> Result<Vec<u8>, DepotError> {
        let path = self.object(id, &file.path);
        let length = |found| {
            let object = self.name(&path);
            if found == file.bytes { Ok(()) } else { Err(DepotError::Length { object, expected: file.bytes, found }) }
        };
        // A range of no bytes is no range; the object's length says that it is empty. One of all bytes is none to some servers, rclone's for one.
        let (is_empty, is_whole) = (from == to, from == 0 && to == file.bytes);
        let options = GetOptions {
            range: (!is_empty && !is_whole).then_some(GetRange::Bounded(from..to)),
            head: is_empty,
            ..GetOptions::default()
        };
        let got = match self.objects.get_opts(&path, options).await {
            Ok(got) => got,
            Err(source) => {
                // A range that begins behind the end is refused by stores in words of their own.
                if let Ok(there) = self.objects.head(&path).await {
                    length(there.size)?;
                }
                return Err(self.refused(&path, source));
            }
        };
        length(got.meta.size)?;
        if is_empty {
            return Ok(Vec::new());
        }
        let bytes = self.collect(&path, got, to - from).await?;
        if bytes.len() as u64 != to - from {
            return Err(DepotError::Length {
                object: self.name(&path),
                expected: to - from,
                found: bytes.len() as u64,
            });
        }
        Ok(bytes)
    }

    /// A whole object of at most `bytes_max`; nothing where there is none.
    async fn small(&self, path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, DepotError> {
        match self.objects.get_opts(path, GetOptions::default()).await {
            Ok(got) => self.collect(path, got, bytes_max).await.map(Some),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(self.refused(path, source)),
        }
    }

    /// What a store sends, which it may have said to be shorter than it is.
    async fn collect(&self, path: &Path, got: GetResult, bytes_max: u64) -> Result<Vec<u8>, DepotError> {
        let mut bytes = Vec::new();
        let mut chunks = got.into_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|source| self.refused(path, source))?;
            if (bytes.len() + chunk.len()) as u64 > bytes_max {
                let rule = format!("is larger than {bytes_max} bytes");
                return Err(DepotError::Malformed { object: self.name(path), rule });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// The object of a generation's file. Whatever the names are, it is below the prefix.
    pub(super) fn object(&self, id: &GenerationId, file: &str) -> Path {
        file.split('/').fold(self.prefix.clone().join(id.as_str()), Path::join)
    }

    /// A generation's file as messages name it.
    pub(super) fn name_of(&self, id: &GenerationId, file: &str) -> String {
        self.name(&self.object(id, file))
    }

    /// An object as messages name it.
    fn name(&self, path: &Path) -> String {
        format!("{}/{path}", self.root)
    }

    pub(super) fn refused(&self, path: &Path, source: object_store::Error) -> DepotError {
        DepotError::Store { object: self.name(path), source }
    }
}

fn retry() -> RetryConfig {
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(5), base: 2.0 };
    RetryConfig { backoff, max_retries: RETRIES_MAX, retry_timeout: RETRY_TIME }
}
