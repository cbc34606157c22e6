//! Embeddings given to the nearest centroids that have room.
//!
//! The greedy of Martello and Toth ("An algorithm for the generalized assignment problem", 1981): whoever would lose most by
//! getting the second best instead of the best goes first. When a cluster is full, those who had it in mind choose anew.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use turret_retrieval::vector::{UnitVector, dot};

const NOWHERE: u32 = u32::MAX;

/// What an embedding wants, of the clusters that have room.
#[derive(Clone, Copy)]
struct Choice {
    best: u32,
    second: u32,
    /// By how much the best is better; infinite where it is the only one.
    regret: f32,
}

/// A place in the queue: the largest regret first, of equal ones the lowest row.
struct Place {
    regret: f32,
    row: u32,
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        self.regret.total_cmp(&other.regret).then(other.row.cmp(&self.row))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Place {}

/// The cluster of each embedding. None takes more than `room`, and together they have room for all.
///
/// One product of each embedding with each centroid, and the same again for each that chooses anew: rarely as often as there are
/// clusters.
pub(super) fn assign(vectors: &[&[f32]], centroids: &[UnitVector], room: usize) -> Vec<u32> {
    assert!(room.saturating_mul(centroids.len()) >= vectors.len(), "there is room for all");
    let mut left = vec![room; centroids.len()];
    let mut choices: Vec<Choice> = vectors.iter().map(|vector| choose(vector, centroids, &left)).collect();
    let mut assigned = vec![NOWHERE; vectors.len()];
    let places = (0u32..).zip(&choices).map(|(row, choice)| Place { regret: choice.regret, row });
    let mut queue: BinaryHeap<Place> = places.collect();
    while let Some(Place { regret, row }) = queue.pop() {
        let (at, choice) = (row as usize, choices[row as usize]);
        // Who chose anew stands in another place too.
        if assigned[at] != NOWHERE || choice.regret.total_cmp(&regret) != Ordering::Equal {
            continue;
        }
        assigned[at] = choice.best;
        let left_there = &mut left[choice.best as usize];
        *left_there -= 1;
        if *left_there > 0 {
            continue;
        }
        let full = choice.best;
        for (row, (vector, choice)) in (0u32..).zip(vectors.iter().zip(&mut choices)) {
            if assigned[row as usize] == NOWHERE && (choice.best == full || choice.second == full) {
                *choice = choose(vector, centroids, &left);
                queue.push(Place { regret: choice.regret, row });
            }
        }
    }
    assigned
}

fn choose(vector: &[f32], centroids: &[UnitVector], left: &[usize]) -> Choice {
    let (mut best, mut second) = ((f32::NEG_INFINITY, NOWHERE), (f32::NEG_INFINITY, NOWHERE));
    for ((cluster, centroid), _) in (0u32..).zip(centroids).zip(left).filter(|(_, left)| **left > 0) {
        let score = dot(vector, centroid.as_slice());
        if score > best.0 || best.1 == NOWHERE {
            (second, best) = (best, (score, cluster));
        } else if score > second.0 || second.1 == NOWHERE {
            second = (score, cluster);
        }
    }
    Choice { best: best.1, second: second.1, regret: best.0 - second.0 }
}
