use proptest::prelude::*;

use super::*;

fn unit(components: &[f32]) -> UnitVector {
    UnitVector::normalize(components.to_vec()).unwrap()
}

fn clusters() -> Clusters {
    Clusters {
        centroids: vec![unit(&[1.0, 0.0]), unit(&[0.0, 1.0]), unit(&[-1.0, 0.0]), unit(&[0.0, -1.0])],
        target_recall: 0.9,
        probes: 3,
        shares: vec![
            RankShares { k: 10, by_rank: vec![0.9, 0.1, 0.0, 0.0] },
            RankShares { k: 100, by_rank: vec![0.6, 0.2, 0.2, 0.0] },
        ],
    }
}

#[test]
fn a_query_goes_to_as_few_of_the_nearest_shards_as_reach_the_target() {
    let clusters = clusters();
    let ranked: Vec<u32> = clusters.ranked(&unit(&[0.5, 0.9])).into_iter().map(|shard| shard.0).collect();
    assert_eq!(ranked, [1, 0, 2, 3]);
    // More ads lie further apart, and of more than was measured nobody knows where they lie.
    let asked = [1.0, 10.0, 10.5, 100.0, 101.0, f64::INFINITY].map(|wanted| clusters.asked(wanted));
    assert_eq!(asked, [1, 1, 3, 3, 4, 4]);
    assert_eq!(clusters.shares[1].curve(), [0.6, 0.8, 1.0, 1.0]);
    assert_eq!(Clusters { target_recall: 1.0, ..clusters }.asked(10.0), 2);
}

#[test]
fn an_ad_belongs_to_the_nearest_shard_and_to_another_only_where_that_is_as_near() {
    let clusters = clusters();
    assert_eq!(clusters.homes(&unit(&[0.5, 0.9])), [ShardId(1)]);
    assert_eq!(clusters.homes(&unit(&[1.0, 1.000_01])), [ShardId(0), ShardId(1)]);
    // As when all ads are the same.
    let same = Clusters { centroids: vec![unit(&[1.0, 0.0]); 4], ..clusters };
    assert_eq!(same.homes(&unit(&[1.0, 1.0])), [ShardId(0)]);
}

proptest! {
    #[test]
    fn however_the_last_bits_of_an_embedding_fall_one_home_stays(
        angle in 0f32..std::f32::consts::TAU, noise in prop::array::uniform2(-1e-6f32..1e-6),
    ) {
        let clusters = clusters();
        let (x, y) = (angle.cos(), angle.sin());
        let told = clusters.homes(&unit(&[x, y]));
        let again = clusters.homes(&unit(&[x + noise[0], y + noise[1]]));
        prop_assert!(!told.is_empty());
        // Whoever is nearest by the one account is a home by the other.
        let nearest = clusters.ranked(&unit(&[x, y]))[0];
        prop_assert!(again.contains(&nearest), "{:?} {:?}", told, again);
    }
}

#[test]
fn a_manifest_survives_json_and_what_is_unsound_is_refused_with_the_field() {
    let sound = Partitioning::Clustered(clusters());
    let text = serde_json::to_string(&sound).unwrap();
    assert_eq!(serde_json::from_str::<Partitioning>(&text).unwrap(), sound);
    assert_eq!(serde_json::to_string(&Partitioning::Hash).unwrap(), r#"{"kind":"hash"}"#);
    assert!(serde_json::from_str::<Partitioning>(r#"{"kind":"by_taste"}"#).is_err());
    assert!(serde_json::from_str::<Partitioning>(&text.replace("probes", "tests")).is_err());
    assert_eq!(sound.check(4, 2), Ok(()));
    assert_eq!(Partitioning::Hash.check(1_024, 4_096), Ok(()));

    let refused = |change: &dyn Fn(&mut Clusters), shards: usize, dimension: usize, field: &str| {
        let mut clusters = clusters();
        change(&mut clusters);
        let (found, rule) = Partitioning::Clustered(clusters).check(shards, dimension).unwrap_err();
        assert_eq!(found, field, "{rule}");
    };
    refused(&|_| {}, 5, 2, "partitioning.centroids");
    refused(&|_| {}, 4, 3, "partitioning.centroids");
    refused(&|of| of.centroids = vec![unit(&[1.0; 32_769]); 2], 2, 32_769, "partitioning.centroids");
    let of_json = |text: &str| serde_json::from_str::<UnitVector>(text).unwrap();
    refused(&|of| of.centroids[1] = of_json("[0.0, 0.5]"), 4, 2, "partitioning.centroids");
    refused(&|of| of.target_recall = 0.0, 4, 2, "partitioning.target_recall");
    refused(&|of| of.target_recall = f64::NAN, 4, 2, "partitioning.target_recall");
    refused(&|of| of.shares.clear(), 4, 2, "partitioning.shares");
    refused(&|of| of.shares.reverse(), 4, 2, "partitioning.shares");
    refused(&|of| of.shares[0].k = 0, 4, 2, "partitioning.shares.by_rank");
    for by_rank in [vec![1.0], vec![0.5, 0.6, 0.0, 0.0], vec![-0.5, 1.5, 0.0, 0.0], vec![f64::NAN, 0.5, 0.5, 0.0]] {
        refused(&|of| of.shares[1].by_rank.clone_from(&by_rank), 4, 2, "partitioning.shares.by_rank");
    }
}
