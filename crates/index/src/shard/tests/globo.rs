//! Real embeddings of news articles, with the nearest neighbours that others computed.

use std::path::Path;

use turret_retrieval::vector::dot;

use super::*;

/// Reads `u32` rows, `u32` columns and the numbers, `N` bytes each.
fn matrix<T>(path: &Path, number: fn([u8; 4]) -> T) -> Vec<Vec<T>> {
    let bytes = std::fs::read(path).unwrap();
    let (words, rest) = bytes.as_chunks::<4>();
    let (rows, columns) = (u32::from_le_bytes(words[0]) as usize, u32::from_le_bytes(words[1]) as usize);
    assert_eq!((words.len(), rest.len()), (rows * columns + 2, 0), "{}", path.display());
    words[2..].chunks(columns).map(|row| row.iter().map(|word| number(*word)).collect()).collect()
}

/// The share of the nearest `k` that `index` finds; what is as near as the last of them counts as one of them.
fn recall(index: &ShardIndex, base: &[Vec<f32>], queries: &[Vec<f32>], truth: &[Vec<u32>], k: usize) -> f64 {
    let mut found = 0;
    for (query, nearest) in queries.iter().zip(truth) {
        let unit = unit(query);
        let last = dot(unit.as_slice(), unit_of(base, nearest[k - 1]).as_slice());
        let hits = search(index, &unit, k, None).ads;
        assert_eq!(hits.len(), k);
        found += hits.iter().filter(|ad| ad.hit.score >= last - 1e-6).count();
    }
    found as f64 / (queries.len() * k) as f64
}

fn unit_of(base: &[Vec<f32>], row: u32) -> UnitVector {
    unit(&base[row as usize])
}

#[test]
fn real_embeddings_are_found() {
    let Some(data) = std::env::var_os("TURRET_DATA") else {
        println!("skipped: TURRET_DATA is not set");
        return;
    };
    let dir = Path::new(&data).join("ann").join("globo_ppmi64");
    let base = matrix(&dir.join("base.fbin"), f32::from_le_bytes);
    let queries = matrix(&dir.join("query.fbin"), f32::from_le_bytes);
    let truth = matrix(&dir.join("gt100_ip.ibin"), u32::from_le_bytes);
    let vectors: Vec<UnitVector> = base.iter().map(|row| unit(row)).collect();
    let exact = index(ads(&vectors, |_| vec![]), &settings(Backend::Exact));
    let graph = index(ads(&vectors, |_| vec![]), &settings(Backend::DiskAnn));
    for k in [10, 100] {
        let (scan, walk) = (recall(&exact, &base, &queries, &truth, k), recall(&graph, &base, &queries, &truth, k));
        println!("{} ads: recall@{k} {scan:.4} exact, {walk:.4} graph", exact.len());
        assert!((scan - 1.0).abs() < 1e-12, "exact recall@{k} is {scan}");
        assert!(walk >= 0.95, "graph recall@{k} is {walk}");
    }
}
