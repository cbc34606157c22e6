use proptest::prelude::*;
use turret_retrieval::hashing::reduce;

use super::*;
use crate::fixtures::{clustered, unit};

fn settings(clusters: usize) -> ClusterSettings {
    ClusterSettings { clusters, fullness_max: 1.05, seed: 7 }
}

fn slices(vectors: &[UnitVector]) -> Vec<&[f32]> {
    vectors.iter().map(UnitVector::as_slice).collect()
}

fn sizes(clustering: &Clustering) -> Vec<usize> {
    let mut sizes = vec![0; clustering.centroids.len()];
    clustering.cluster_of.iter().for_each(|cluster| sizes[*cluster as usize] += 1);
    sizes
}

/// Every embedding is in one cluster, none of which is too full, and every centroid is a direction.
fn check(vectors: &[&[f32]], dimension: usize, settings: &ClusterSettings) -> Clustering {
    let clustering = cluster(vectors, dimension, settings);
    assert_eq!(clustering.cluster_of.len(), vectors.len());
    assert_eq!(clustering.centroids.len(), settings.clusters);
    let largest = sizes(&clustering).into_iter().max().unwrap();
    let mean = vectors.len() as f64 / settings.clusters as f64;
    assert!(largest as f64 <= (settings.fullness_max * mean).max(mean.ceil()), "{largest} where the mean is {mean}");
    for centroid in &clustering.centroids {
        centroid.check(dimension).unwrap();
        assert!((f64::from(dot(centroid.as_slice(), centroid.as_slice())) - 1.0).abs() < 1e-5);
    }
    clustering
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn clusters_hold_every_embedding_once_none_too_many_and_what_is_near(
        seed in any::<u64>(), rows in 0usize..700, groups in 1usize..40, clusters in 1usize..20,
        fullness_max in prop_oneof![Just(1.0), 1.0..2.0],
    ) {
        let vectors = clustered(seed, rows, 16, groups);
        let vectors = slices(&vectors);
        let settings = ClusterSettings { clusters, fullness_max, seed };
        let clustering = check(&vectors, 16, &settings);
        prop_assert_eq!(&clustering, &cluster(&vectors, 16, &settings), "one seed, one result");
        // As good as clusters that know nothing, at least, by the centroids that each makes best use of.
        let chance: Vec<u32> =
            (0..rows as u64).map(|row| reduce(stable_hash(seed, &row.to_le_bytes()), clusters as u32)).collect();
        let of_chance = means(&vectors, &chance, clustering.centroids.clone());
        let (ours, theirs) = (
            mean_score(&vectors, &clustering.cluster_of, &clustering.centroids),
            mean_score(&vectors, &chance, &of_chance),
        );
        // Of a few embeddings chance, which may be as unequal as it likes, can be lucky.
        prop_assert!(ours >= theirs || rows < 8 * clusters, "{ours} where chance has {theirs}");
    }
}

#[test]
fn groups_that_lie_apart_become_the_clusters() {
    let vectors = clustered(3, 4_000, 32, 8);
    let clustering = check(&slices(&vectors), 32, &settings(8));
    // Row r is of group r % 8: each cluster is one of them.
    for (row, cluster) in clustering.cluster_of.iter().enumerate() {
        assert_eq!(*cluster, clustering.cluster_of[row % 8], "row {row}");
    }
}

#[test]
fn a_crowd_is_divided_where_one_cluster_would_be_nearest_to_all() {
    // Nine in ten lie together.
    let vectors: Vec<UnitVector> = (0..1_000u16)
        .map(|i| if i % 10 == 0 { unit(&[f32::from(i), 1.0]) } else { unit(&[-1.0, f32::from(i) * 1e-4]) })
        .collect();
    let sizes = sizes(&check(&slices(&vectors), 2, &settings(4)));
    assert!(sizes.iter().all(|size| *size > 0), "{sizes:?}");
}

#[test]
fn what_cannot_be_clustered_well_is_clustered_all_the_same() {
    let same = unit(&[0.6, 0.8]);
    let apart = [unit(&[1.0, 0.0]), unit(&[-1.0, 0.0])];
    for clusters in [1, 2, 7] {
        check(&[], 2, &settings(clusters));
        check(&[same.as_slice()], 2, &settings(clusters));
        // Of two that cancel each other the sum is no direction.
        check(&slices(&apart), 2, &settings(clusters));
        check(&vec![same.as_slice(); 1_000], 2, &settings(clusters));
    }
    // Fewer embeddings than clusters: none shares its own.
    let few = clustered(1, 5, 8, 5);
    assert!(sizes(&check(&slices(&few), 8, &settings(9))).iter().all(|size| *size <= 1));
}

#[test]
fn of_many_embeddings_a_sample_finds_the_centroids() {
    let vectors = clustered(5, SAMPLE_MAX + 4_001, 8, 64);
    let vectors = slices(&vectors);
    let clustering = check(&vectors, 8, &settings(6));
    assert!(mean_score(&vectors, &clustering.cluster_of, &clustering.centroids) > 0.4);
}
