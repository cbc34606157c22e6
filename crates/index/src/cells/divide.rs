//! Dividing rows into cells: halved again and again between the two directions that they lie in, then each given to the nearest.
//!
//! Bisecting spherical k-means (Steinbach, Karypis and Kumar, "A comparison of document clustering techniques", 2000), whose halves
//! keep a quarter of the rows at least, for where to begin, and two rounds of k-means from there, the first of them with a quarter
//! of the rows: without these the best 100 lay in a hundred times as many cells, a third round brought nothing.

use roaring::RoaringBitmap;
use turret_retrieval::vector::dot;

use crate::exact::scan;
use crate::vectors::Vectors;

/// Rows that are no longer halved: as many as are compared together. Of a shard larger than this they grow with the root of the rows, as
/// every search compares all centroids.
const CELL_ROWS: usize = 64;
const CELL_ROWS_UP_TO: usize = 200_000;
/// Rows that two directions are sought with.
const SAMPLE_ROWS: usize = 256;
const ROUNDS: usize = 4;
/// A half has one of so many rows at least.
const HALF_ONE_IN: usize = 4;
/// Of the rows that move centroids.
const MOVING_ONE_IN: usize = 4;
/// Rows whose nearest centroids are found together.
const TOGETHER: usize = 256;

/// The rows of each cell, ascending, none of them empty. Neighbouring cells lie near each other. However many threads find them,
/// they are the same.
pub(crate) fn divide(vectors: &Vectors, rows: &RoaringBitmap, threads: usize) -> Vec<Vec<u32>> {
    let halved = halved(vectors, rows);
    let mut directions: Vec<Vec<f32>> = halved.iter().map(|rows| direction(vectors, rows)).collect();
    let moving: Vec<u32> = halved.iter().flatten().copied().step_by(MOVING_ONE_IN).collect();
    let moved = nearest(vectors, &moving, &directions, threads);
    for (direction, rows) in directions.iter_mut().zip(moved).filter(|(_, rows)| !rows.is_empty()) {
        *direction = self::direction(vectors, &rows);
    }
    let mut cells = nearest(vectors, &rows.iter().collect::<Vec<_>>(), &directions, threads);
    cells.retain(|rows| !rows.is_empty());
    cells
}

/// The rows of each cell, by halving.
fn halved(vectors: &Vectors, rows: &RoaringBitmap) -> Vec<Vec<u32>> {
    let crowd = (rows.len() as f64 / CELL_ROWS_UP_TO as f64).sqrt().max(1.0);
    let rows_max = (CELL_ROWS as f64 * crowd) as usize;
    let mut cells = Vec::new();
    let mut left: Vec<Vec<u32>> = if rows.is_empty() { Vec::new() } else { vec![rows.iter().collect()] };
    while let Some(rows) = left.pop() {
        if rows.len() <= rows_max {
            cells.push(rows);
            continue;
        }
        let between = between(vectors, &rows);
        let mut sides: Vec<(f32, u32)> = rows.iter().map(|row| (dot(vectors.row(*row), &between), *row)).collect();
        let nearer = sides.iter().filter(|(side, _)| *side < 0.0).count();
        let least = sides.len() / HALF_ONE_IN;
        let at = nearer.clamp(least, sides.len() - least);
        sides.select_nth_unstable_by(at, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let half = |sides: &[(f32, u32)]| sides.iter().map(|(_, row)| *row).collect();
        left.push(half(&sides[at..]));
        left.push(half(&sides[..at]));
    }
    cells
}

/// Of `rows`, those that are nearest to each of `directions`, in the order that they were given in.
fn nearest(vectors: &Vectors, rows: &[u32], directions: &[Vec<f32>], threads: usize) -> Vec<Vec<u32>> {
    let directions = Vectors::from_rows(vectors.dimension(), &directions.concat());
    let nearest_to = |rows: &[u32]| -> Vec<u32> {
        let embeddings: Vec<&[f32]> = rows.iter().map(|row| vectors.row(*row)).collect();
        let found = embeddings.chunks(TOGETHER).flat_map(|embeddings| scan(&directions, embeddings, None, 1));
        found.map(|best| best.first().map_or(0, |best| best.row)).collect()
    };
    let nearest: Vec<u32> = std::thread::scope(|scope| {
        let parts = rows.chunks(rows.len().div_ceil(threads.max(1)).max(TOGETHER));
        let parts: Vec<_> = parts.map(|rows| scope.spawn(|| nearest_to(rows))).collect();
        let found = parts.into_iter().map(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        found.flatten().collect()
    });
    let mut of = vec![Vec::new(); directions.len()];
    rows.iter().zip(nearest).for_each(|(row, nearest)| of[nearest as usize].push(*row));
    of
}

/// The direction of the sum of some rows.
pub(super) fn direction(vectors: &Vectors, rows: &[u32]) -> Vec<f32> {
    direction_of(&rows.iter().map(|row| vectors.row(*row)).collect::<Vec<_>>(), vectors.dimension())
}

/// The difference of two directions around which `rows` lie, at least two.
fn between(vectors: &Vectors, rows: &[u32]) -> Vec<f32> {
    let sample: Vec<&[f32]> =
        rows.iter().step_by(rows.len().div_ceil(SAMPLE_ROWS)).map(|row| vectors.row(*row)).collect();
    let furthest = |from: &[f32]| {
        let scores = sample.iter().map(|row| dot(row, from));
        scores.enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).map_or(sample[0], |(at, _)| sample[at])
    };
    let one = furthest(&direction_of(&sample, vectors.dimension()));
    let mut difference: Vec<f32> = furthest(one).iter().zip(one).map(|(a, b)| a - b).collect();
    for _ in 0..ROUNDS {
        let (near, far): (Vec<&[f32]>, Vec<&[f32]>) = sample.iter().partition(|row| dot(row, &difference) < 0.0);
        if near.is_empty() || far.is_empty() {
            break;
        }
        let [near, far] = [near, far].map(|rows| direction_of(&rows, vectors.dimension()));
        difference = far.iter().zip(&near).map(|(a, b)| a - b).collect();
    }
    difference
}

/// The direction of the sum of `rows`; nothing where they cancel out.
fn direction_of(rows: &[&[f32]], dimension: usize) -> Vec<f32> {
    let mut sum = vec![0f32; dimension];
    rows.iter().for_each(|row| sum.iter_mut().zip(*row).for_each(|(sum, x)| *sum += x));
    let length = dot(&sum, &sum).sqrt();
    if length > 0.0 {
        sum.iter_mut().for_each(|x| *x /= length);
    }
    sum
}
