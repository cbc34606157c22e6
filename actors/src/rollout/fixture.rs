//! A manifest for tests of what only reads one.

use std::collections::BTreeMap;

use turret_retrieval::digest::Digester;
use turret_retrieval::generation::{BuiltRecall, File, MANIFEST_FORMAT, Manifest, Metric, Versions};
use turret_retrieval::ids::{EncoderVersion, GenerationId};
use turret_retrieval::partitioning::Partitioning;
use turret_retrieval::revision::Revision;

/// Of 100 ads in 2 shards, and of 4 user partitions.
pub(crate) fn manifest() -> Manifest {
    let digest = Digester::default().finish();
    Manifest {
        format: MANIFEST_FORMAT,
        id: GenerationId::new("g-test").unwrap(),
        created_at_ms: 0,
        versions: Versions {
            encoder: EncoderVersion::new("enc-test").unwrap(),
            head: "head-test".into(),
            ad_tower: "ads-test".into(),
            index: "index-test".into(),
            feature_schema: digest.clone(),
        },
        dimension: 16,
        metric: Metric::InnerProduct,
        shard_ads: vec![60, 40],
        partitioning: Partitioning::Hash,
        partition_users: vec![1; 4],
        attributes: BTreeMap::new(),
        recall: BuiltRecall { k: 10, probes: 8, recall: 1.0 },
        calibrations: vec![None; 2],
        ads_until: Revision::NONE,
        files: vec![File { path: "model/tensors.safetensors".to_owned(), bytes: 1, sha256: digest }],
    }
}
