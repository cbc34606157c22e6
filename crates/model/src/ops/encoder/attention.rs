//! Multi-head attention within one sequence, sixteen queries at a time, so that their weights stay in the nearest cache.

use super::super::exp;
use super::super::lanes::{dot, largest, sum};
use super::super::tile::{Rows, TALL, WIDE, add_transposed_product, padded, product};

/// Queries of a block.
const BLOCK: usize = 16;
/// Rows that are transposed at once.
const TURNED: usize = 8;

/// The queries, keys and values of one sequence.
#[derive(Clone, Copy)]
pub(super) struct Sequence<'a> {
    /// [queries, width].
    pub(super) queries: &'a [f32],
    /// Which token of the sequence each query belongs to.
    pub(super) places: &'a [usize],
    /// [tokens, 2 width]: keys, then values.
    pub(super) keys_values: &'a [f32],
}

/// How a sequence is attended to.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub(super) width: usize,
    pub(super) heads: usize,
    pub(super) causal: bool,
}

/// What one head works on. Heights and widths are padded with zeros to whole tiles.
#[derive(Default)]
pub(super) struct Scratch {
    // [size, tokens].
    key_columns: Vec<f32>,
    value_columns: Vec<f32>,
    // [tokens, size].
    keys: Vec<f32>,
    values: Vec<f32>,
    grad_keys: Vec<f32>,
    grad_values: Vec<f32>,
    // [BLOCK, size].
    query: Vec<f32>,
    grad: Vec<f32>,
    mixed: Vec<f32>,
    // [BLOCK, tokens].
    weights: Vec<f32>,
    grad_weights: Vec<f32>,
}

fn zeroed(values: &mut Vec<f32>, count: usize) {
    values.clear();
    values.resize(count, 0.0);
}

/// How many rows a block of these queries has.
fn padded_rows(places: &[usize]) -> usize {
    places.len().next_multiple_of(TALL)
}

/// Copies `size` columns of `from`, [rows, stride], starting at `column`, into `out` with rows of `padded(size)`.
fn take(from: &[f32], stride: usize, column: usize, size: usize, out: &mut [f32]) {
    for (out, from) in out.chunks_exact_mut(padded(size)).zip(from.chunks_exact(stride)) {
        out[..size].copy_from_slice(&from[column..column + size]);
    }
}

/// The same, transposed: `out` has rows of `length`.
fn take_columns(from: &[f32], stride: usize, column: usize, size: usize, out: &mut [f32], length: usize) {
    // A block of rows at a time: value by value, the writes are as slow as the products that they are for.
    let (blocks, rest) = from.split_at(from.len() - from.len() % (TURNED * stride));
    for (block, from) in blocks.chunks_exact(TURNED * stride).enumerate() {
        let rows: [&[f32]; TURNED] = std::array::from_fn(|row| &from[row * stride + column..][..size]);
        for (number, out) in out.chunks_exact_mut(length).enumerate().take(size) {
            out[block * TURNED..][..TURNED].copy_from_slice(&rows.map(|row| row[number]));
        }
    }
    let first = blocks.len() / stride;
    for (row, from) in rest.chunks_exact(stride).enumerate() {
        for (number, value) in from[column..column + size].iter().enumerate() {
            out[number * length + first + row] = *value;
        }
    }
}

impl Heads {
    fn size(self) -> usize {
        self.width / self.heads
    }

    fn scale(self) -> f32 {
        1.0 / (self.size() as f32).sqrt()
    }

    fn visible(self, place: usize, tokens: usize) -> usize {
        if self.causal { place + 1 } else { tokens }
    }

    /// Mixes the values for each query into `out`, [queries, width].
    pub(super) fn forward(self, sequence: Sequence<'_>, scratch: &mut Scratch, out: &mut [f32]) {
        let (width, size) = (self.width, self.size());
        let tokens = sequence.keys_values.len() / (2 * width);
        let (length, wide) = (padded(tokens), padded(size));
        for head in 0..self.heads {
            zeroed(&mut scratch.key_columns, size * length);
            zeroed(&mut scratch.values, length * wide);
            take_columns(sequence.keys_values, 2 * width, head * size, size, &mut scratch.key_columns, length);
            take(sequence.keys_values, 2 * width, width + head * size, size, &mut scratch.values);
            let blocks = sequence.queries.chunks(BLOCK * width).zip(sequence.places.chunks(BLOCK));
            for ((queries, places), out) in blocks.zip(out.chunks_mut(BLOCK * width)) {
                let columns = self.attend(queries, places, head, tokens, scratch);
                zeroed(&mut scratch.mixed, padded_rows(places) * wide);
                let weights = Rows { values: &scratch.weights, stride: length };
                let values = Rows { values: &scratch.values, stride: wide };
                product(weights, columns, values, &mut scratch.mixed, wide, wide);
                for (out, mixed) in out.chunks_exact_mut(width).zip(scratch.mixed.chunks_exact(wide)) {
                    out[head * size..][..size].copy_from_slice(&mixed[..size]);
                }
            }
        }
    }

    /// Fills `weights` with what each query of a block takes from each token; returns how many columns matter.
    fn attend(self, queries: &[f32], places: &[usize], head: usize, tokens: usize, scratch: &mut Scratch) -> usize {
        let size = self.size();
        let (length, wide) = (padded(tokens), padded(size));
        let rows = padded_rows(places);
        zeroed(&mut scratch.query, rows * wide);
        take(queries, self.width, head * size, size, &mut scratch.query);
        let scale = self.scale();
        scratch.query.iter_mut().for_each(|x| *x *= scale);
        let seen = places.iter().map(|place| self.visible(*place, tokens)).max().unwrap_or(0);
        let columns = padded(seen);
        scratch.weights.resize(rows * length, 0.0);
        let query = Rows { values: &scratch.query, stride: wide };
        let keys = Rows { values: &scratch.key_columns, stride: length };
        product(query, size, keys, &mut scratch.weights, length, columns);
        let mut rows = scratch.weights.chunks_exact_mut(length);
        for (place, row) in places.iter().zip(&mut rows) {
            let (row, hidden) = row[..columns].split_at_mut(self.visible(*place, tokens));
            hidden.fill(0.0);
            let top = largest(row);
            row.iter_mut().for_each(|score| *score = exp(*score - top));
            let share = 1.0 / sum(row);
            row.iter_mut().for_each(|weight| *weight *= share);
        }
        rows.for_each(|row| row[..columns].fill(0.0));
        columns
    }

    /// Fills the gradients of queries [queries, width] and of keys and values [tokens, 2 width] from that of the mix.
    pub(super) fn backward(
        self,
        sequence: Sequence<'_>,
        grad: &[f32],
        scratch: &mut Scratch,
        grad_queries: &mut [f32],
        grad_keys_values: &mut [f32],
    ) {
        let (width, size) = (self.width, self.size());
        let tokens = sequence.keys_values.len() / (2 * width);
        let wide = padded(size);
        for head in 0..self.heads {
            self.load(sequence.keys_values, head, tokens, scratch);
            let blocks = sequence.queries.chunks(BLOCK * width).zip(sequence.places.chunks(BLOCK));
            let grads = grad.chunks(BLOCK * width).zip(grad_queries.chunks_mut(BLOCK * width));
            for ((queries, places), (grad, grad_queries)) in blocks.zip(grads) {
                self.backward_block((queries, places), grad, head, tokens, scratch);
                for (out, mixed) in grad_queries.chunks_exact_mut(width).zip(scratch.mixed.chunks_exact(wide)) {
                    out[head * size..][..size].copy_from_slice(&mixed[..size]);
                }
            }
            let grads = scratch.grad_keys.chunks_exact(wide).zip(scratch.grad_values.chunks_exact(wide));
            for (out, (key, value)) in grad_keys_values.chunks_exact_mut(2 * width).zip(grads) {
                out[head * size..][..size].copy_from_slice(&key[..size]);
                out[width + head * size..][..size].copy_from_slice(&value[..size]);
            }
        }
    }

    /// Copies a head's keys and values, and clears their gradients.
    fn load(self, keys_values: &[f32], head: usize, tokens: usize, scratch: &mut Scratch) {
        let (width, size) = (self.width, self.size());
        let (length, wide) = (padded(tokens), padded(size));
        let (key, value) = (head * size, width + head * size);
        for columns in [&mut scratch.key_columns, &mut scratch.value_columns] {
            zeroed(columns, size * length);
        }
        take_columns(keys_values, 2 * width, key, size, &mut scratch.key_columns, length);
        take_columns(keys_values, 2 * width, value, size, &mut scratch.value_columns, length);
        for rows in [&mut scratch.keys, &mut scratch.grad_keys, &mut scratch.grad_values] {
            zeroed(rows, length * wide);
        }
        take(keys_values, 2 * width, key, size, &mut scratch.keys);
    }

    /// Adds to the gradients of keys and values, and leaves that of the block's queries in `mixed`.
    fn backward_block(
        self,
        (queries, places): (&[f32], &[usize]),
        grad: &[f32],
        head: usize,
        tokens: usize,
        scratch: &mut Scratch,
    ) {
        let size = self.size();
        let (length, wide) = (padded(tokens), padded(size));
        let columns = self.attend(queries, places, head, tokens, scratch);
        let rows = padded_rows(places);
        zeroed(&mut scratch.grad, rows * wide);
        take(grad, self.width, head * size, size, &mut scratch.grad);
        scratch.grad_weights.resize(rows * length, 0.0);
        let grad = Rows { values: &scratch.grad, stride: wide };
        let value_columns = Rows { values: &scratch.value_columns, stride: length };
        product(grad, size, value_columns, &mut scratch.grad_weights, length, columns);
        let pairs = scratch.weights.chunks_exact(length).zip(scratch.grad_weights.chunks_exact_mut(length));
        for (weights, grads) in pairs {
            let (weights, grads) = (&weights[..columns], &mut grads[..columns]);
            let mean = dot(weights, grads);
            grads.iter_mut().zip(weights).for_each(|(grad, weight)| *grad = weight * (*grad - mean));
        }
        let weights = Rows { values: &scratch.weights, stride: length };
        let grad_scores = Rows { values: &scratch.grad_weights, stride: length };
        let query = Rows { values: &scratch.query, stride: wide };
        let seen = columns * wide;
        add_transposed_product(grad_scores, query, rows, &mut scratch.grad_keys[..seen], wide);
        add_transposed_product(weights, grad, rows, &mut scratch.grad_values[..seen], wide);
        zeroed(&mut scratch.mixed, rows * wide);
        let keys = Rows { values: &scratch.keys, stride: wide };
        product(grad_scores, columns, keys, &mut scratch.mixed, wide, wide);
        let scale = self.scale();
        scratch.mixed.iter_mut().for_each(|x| *x *= scale);
    }
}

const _: () = assert!(WIDE.is_multiple_of(TALL));
