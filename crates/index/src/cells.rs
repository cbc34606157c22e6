//! Rows that lie together: an inverted file over the embeddings of a shard (Sivic and Zisserman, "Video Google", 2003), by which a
//! search with a filter finds the rows near its query without a walk.
//!
//! A cell has a direction, and a radius within which its rows lie. A row `x` of a cell with direction `c` scores `q.c + q.(x - c)` for
//! a query `q` of length 1, and so at most `q.c` and the radius. Few rows lie straight towards a query: a share of the radius, which
//! is measured, does for almost all of them.

use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::blocks::Blocks;
use crate::exact::{ScoredRow, at_most, scan};
use crate::vectors::Vectors;

mod around;
mod divide;
mod members;
mod promising;
mod reach;

pub(crate) use around::{Around, Look, LookEnd, Looked, NEAR_CELLS};
use divide::direction;
pub(crate) use divide::divide;
use members::Members;
pub(crate) use reach::measure;

/// Which rows lie together. A clone shares all of it, until one of them changes.
#[derive(Clone)]
pub(crate) struct Cells {
    centroids: Arc<Vectors>,
    /// The rows of each cell, those that are dead too.
    members: Blocks<Members>,
    /// How far from its centroid a row of each cell lies, at most; those that went count too.
    radii: Arc<Vec<f32>>,
    /// The cell of each row, whatever the row holds now.
    cell_of: Blocks<u32>,
}

/// Cells as they stand in a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Parts {
    /// `[cells, dimension]`, row-major.
    pub(crate) directions: Vec<f32>,
    pub(crate) radii: Vec<f32>,
    /// The cell of each row.
    pub(crate) cell_of: Vec<u32>,
}

impl Cells {
    /// Of `rows` of `vectors`, found by so many threads.
    pub(crate) fn of(vectors: &Vectors, rows: &RoaringBitmap, threads: usize) -> Self {
        Self::with(vectors, divide(vectors, rows, threads))
    }

    /// With these rows of `vectors` in each.
    pub(crate) fn with(vectors: &Vectors, cells: Vec<Vec<u32>>) -> Self {
        let last = cells.iter().flatten().max();
        let mut cell_of = vec![0; last.map_or(0, |last| *last as usize + 1)];
        for (cell, rows) in (0..).zip(&cells) {
            rows.iter().for_each(|row| cell_of[*row as usize] = cell);
        }
        let directions: Vec<f32> = cells.iter().flat_map(|rows| direction(vectors, rows)).collect();
        let centroids = Vectors::from_rows(vectors.dimension(), &directions);
        let radius = |(cell, rows): (u32, &Vec<u32>)| {
            rows.iter().map(|row| distance(vectors.row(*row), centroids.row(cell))).fold(0.0, f32::max)
        };
        Self {
            radii: Arc::new((0..).zip(&cells).map(radius).collect()),
            members: cells.into_iter().map(|rows| rows.into_iter().collect()).collect(),
            cell_of: cell_of.into_iter().collect(),
            centroids: Arc::new(centroids),
        }
    }

    /// The cells that `parts` tell.
    pub(crate) fn from_parts(Parts { directions, radii, cell_of }: Parts, dimension: usize) -> Self {
        let mut rows = vec![Vec::new(); radii.len()];
        for (row, cell) in (0..).zip(&cell_of) {
            rows[*cell as usize].push(row);
        }
        Self {
            centroids: Arc::new(Vectors::from_rows(dimension, &directions)),
            members: rows.into_iter().map(|rows| rows.into_iter().collect()).collect(),
            radii: Arc::new(radii),
            cell_of: cell_of.into_iter().collect(),
        }
    }

    /// What is written of them, with the cells of `rows` alone.
    pub(crate) fn parts_of(&self, rows: &[u32]) -> Parts {
        let cells = 0..self.len() as u32;
        Parts {
            directions: cells.flat_map(|cell| self.centroids.row(cell)).copied().collect(),
            radii: self.radii.to_vec(),
            cell_of: rows.iter().map(|row| *self.cell_of.get(*row)).collect(),
        }
    }

    /// Puts a row where it lies now. Whether it was anywhere before does not matter.
    pub(crate) fn settle(&mut self, row: u32, vector: &[f32]) {
        let nearest = scan(&self.centroids, &[vector], None, 1).pop().and_then(|mut best| best.pop());
        let Some(ScoredRow { row: cell, .. }) = nearest else {
            debug_assert!(false, "a graph is made of some rows, and so are its cells");
            return;
        };
        if (row as usize) < self.cell_of.len() {
            let before = *self.cell_of.get(row);
            self.members.set(before, self.members.get(before).without(row));
        }
        // Rows between that are in no cell yet come to be settled themselves.
        (self.cell_of.len() as u32..row).for_each(|between| self.cell_of.set(between, cell));
        self.cell_of.set(row, cell);
        self.members.set(cell, self.members.get(cell).with(row));
        let distance = distance(vector, self.centroids.row(cell));
        if distance > self.radii[cell as usize] {
            Arc::make_mut(&mut self.radii)[cell as usize] = distance;
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// The cell of a row that was settled.
    fn of_row(&self, row: u32) -> u32 {
        *self.cell_of.get(row)
    }

    /// The memory that they take, in bytes, about.
    pub(crate) fn bytes(&self) -> usize {
        let members = (0..self.len() as u32).map(|cell| size_of::<Members>() + self.members.get(cell).bytes());
        self.centroids.bytes() + self.len() * size_of::<f32>() + members.sum::<usize>() + self.cell_of.len() * 4
    }

    /// The cells around `query`.
    pub(crate) fn around(&self, query: &[f32]) -> Around<'_> {
        Around { cells: self, scores: at_most(&self.centroids, query) }
    }
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt()
}

#[cfg(test)]
mod tests;
