//! Multi-head attention within one sequence, sixteen queries at a time: each in a lane of its own, so that the softmax goes
//! down the lanes and never across them.

use super::super::exp;
use super::super::lanes::wide;
use super::super::tile::{Lanes, Panels, Rows, WIDE, add_product, transposed_product};

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

/// What one head works on.
#[derive(Default)]
pub(super) struct Scratch {
    // [tokens, size].
    keys: Panels,
    values: Panels,
    grad_keys: Panels,
    grad_values: Panels,
    // [size, queries of a block].
    query_columns: Panels,
    grad_columns: Panels,
    // [queries of a block, size].
    queries: Panels,
    grads: Panels,
    // [tokens, queries of a block].
    weights: Vec<Lanes>,
    grad_weights: Vec<Lanes>,
}

/// Some queries of a sequence, at most as many as there are lanes.
#[derive(Clone, Copy)]
struct Block<'a> {
    queries: &'a [f32],
    places: &'a [usize],
}

impl<'a> Sequence<'a> {
    #[inline(always)]
    fn tokens(self, width: usize) -> usize {
        self.keys_values.len() / (2 * width)
    }

    #[inline(always)]
    fn blocks(self, width: usize) -> impl Iterator<Item = Block<'a>> {
        let blocks = self.queries.chunks(WIDE * width).zip(self.places.chunks(WIDE));
        blocks.map(|(queries, places)| Block { queries, places })
    }
}

/// Fills `weights` with one number for each token and query.
#[inline(always)]
fn zeroed(weights: &mut Vec<Lanes>, tokens: usize) {
    weights.clear();
    weights.resize(tokens, [0.0; WIDE]);
}

/// The numbers of each token, of so many queries.
#[inline(always)]
fn lanes(weights: &[Lanes], queries: usize) -> Rows<'_> {
    Rows { values: weights.as_flattened(), stride: WIDE, width: queries }
}

/// Turns scores into weights: in each lane, those of its `visible` first tokens into their softmax, others into zeros.
#[inline(always)]
fn softmax(scores: &mut [Lanes], visible: &[u32; WIDE]) {
    let mut tops = [f32::MIN; WIDE];
    for (token, scores) in scores.iter().enumerate() {
        for lane in 0..WIDE {
            // One choice after the other: both at once would be a branch for each lane.
            let score = if (token as u32) < visible[lane] { scores[lane] } else { f32::MIN };
            tops[lane] = if score > tops[lane] { score } else { tops[lane] };
        }
    }
    let mut sums = [0.0; WIDE];
    for (token, scores) in scores.iter_mut().enumerate() {
        for lane in 0..WIDE {
            let weight = exp(scores[lane] - tops[lane]);
            scores[lane] = if (token as u32) < visible[lane] { weight } else { 0.0 };
            sums[lane] += scores[lane];
        }
    }
    // A lane without a query sees nothing, and sums to zero.
    let shares = sums.map(|sum| 1.0 / if sum > 0.0 { sum } else { 1.0 });
    for weights in scores {
        for lane in 0..WIDE {
            weights[lane] *= shares[lane];
        }
    }
}

/// Turns the gradients of weights into those of scores.
#[inline(always)]
fn softmax_backward(weights: &[Lanes], grads: &mut [Lanes]) {
    let mut means = [0.0f32; WIDE];
    for (weights, grads) in weights.iter().zip(&*grads) {
        for lane in 0..WIDE {
            means[lane] = weights[lane].mul_add(grads[lane], means[lane]);
        }
    }
    for (weights, grads) in weights.iter().zip(grads) {
        for lane in 0..WIDE {
            grads[lane] = weights[lane] * (grads[lane] - means[lane]);
        }
    }
}

wide! {
    /// Mixes the values for each query into `out`, [queries, width].
    pub(super) fn forward(heads: Heads, sequence: Sequence<'_>, scratch: &mut Scratch, out: &mut [f32]) {
        let width = heads.width;
        for head in 0..heads.heads {
            scratch.values.take(heads.values(sequence, head));
            for (block, out) in sequence.blocks(width).zip(out.chunks_mut(WIDE * width)) {
                heads.attend(sequence, block, head, scratch);
                heads.mix(&scratch.weights, &scratch.values, out, head);
            }
        }
    }
}

wide! {
    /// Fills the gradients of queries [queries, width] and of keys and values [tokens, 2 width] from that of the mix.
    pub(super) fn backward(
        heads: Heads,
        sequence: Sequence<'_>,
        grad: &[f32],
        scratch: &mut Scratch,
        grad_queries: &mut [f32],
        grad_keys_values: &mut [f32],
    ) {
        let (width, size) = (heads.width, heads.size());
        let tokens = sequence.tokens(width);
        for head in 0..heads.heads {
            scratch.keys.take(heads.keys(sequence, head));
            scratch.grad_keys.clear(tokens, size);
            scratch.grad_values.clear(tokens, size);
            let grads = grad.chunks(WIDE * width).zip(grad_queries.chunks_mut(WIDE * width));
            for (block, (grad, grad_queries)) in sequence.blocks(width).zip(grads) {
                heads.backward_block(sequence, block, grad, head, scratch);
                heads.mix(&scratch.grad_weights, &scratch.keys, grad_queries, head);
            }
            for (panels, first) in [(&scratch.grad_keys, head * size), (&scratch.grad_values, width + head * size)] {
                for (panel, column) in panels.panels().zip((0..size).step_by(WIDE)) {
                    let columns = first + column..first + size.min(column + WIDE);
                    for (out, lanes) in grad_keys_values.chunks_exact_mut(2 * width).zip(panel) {
                        out[columns.clone()].copy_from_slice(&lanes[..columns.len()]);
                    }
                }
            }
        }
    }
}

impl Heads {
    #[inline(always)]
    fn size(self) -> usize {
        self.width / self.heads
    }

    /// What inner products of queries and keys are multiplied with.
    #[inline(always)]
    pub(super) fn scale(self) -> f32 {
        1.0 / (self.size() as f32).sqrt()
    }

    #[inline(always)]
    pub(super) fn visible(self, place: usize, tokens: usize) -> usize {
        if self.causal { place + 1 } else { tokens }
    }

    #[inline(always)]
    fn keys<'a>(self, sequence: Sequence<'a>, head: usize) -> Rows<'a> {
        let values = &sequence.keys_values[head * self.size()..];
        Rows { values, stride: 2 * self.width, width: self.size() }
    }

    #[inline(always)]
    fn values<'a>(self, sequence: Sequence<'a>, head: usize) -> Rows<'a> {
        let values = &sequence.keys_values[self.width + head * self.size()..];
        Rows { values, stride: 2 * self.width, width: self.size() }
    }

    /// A head's part of rows that have all of them.
    #[inline(always)]
    fn part(self, rows: &[f32], head: usize) -> Rows<'_> {
        Rows { values: &rows[head * self.size()..], stride: self.width, width: self.size() }
    }

    /// Fills `weights` with what each query of a block takes from each token, up to the last one that any of them sees.
    #[inline(always)]
    fn attend(self, sequence: Sequence<'_>, block: Block<'_>, head: usize, scratch: &mut Scratch) {
        let tokens = sequence.tokens(self.width);
        let mut visible = [0; WIDE];
        for (visible, place) in visible.iter_mut().zip(block.places) {
            *visible = self.visible(*place, tokens) as u32;
        }
        let seen = visible.iter().max().map_or(0, |seen| *seen as usize);
        scratch.query_columns.take_columns(self.part(block.queries, head), self.scale());
        zeroed(&mut scratch.weights, seen);
        for panel in scratch.query_columns.panels() {
            add_product(self.keys(sequence, head), panel, &mut scratch.weights);
        }
        softmax(&mut scratch.weights, &visible);
    }

    /// Fills a head's part of the rows of a block with sums over the tokens of `values`, by `weights`.
    #[inline(always)]
    fn mix(self, weights: &[Lanes], values: &Panels, out: &mut [f32], head: usize) {
        let size = self.size();
        for (panel, column) in values.panels().zip((0..size).step_by(WIDE)) {
            let mixed = transposed_product(weights, out.len() / self.width, panel);
            let columns = head * size + column..head * size + size.min(column + WIDE);
            for (out, mixed) in out.chunks_exact_mut(self.width).zip(&mixed) {
                out[columns.clone()].copy_from_slice(&mixed[..columns.len()]);
            }
        }
    }

    /// Adds to the gradients of keys and values, and leaves that of the block's scores in `grad_weights`.
    #[inline(always)]
    fn backward_block(
        self,
        sequence: Sequence<'_>,
        block: Block<'_>,
        grad: &[f32],
        head: usize,
        scratch: &mut Scratch,
    ) {
        self.attend(sequence, block, head, scratch);
        let Scratch { weights, grad_weights, .. } = scratch;
        scratch.grad_columns.take_columns(self.part(grad, head), 1.0);
        zeroed(grad_weights, weights.len());
        for panel in scratch.grad_columns.panels() {
            add_product(self.values(sequence, head), panel, grad_weights);
        }
        softmax_backward(weights, grad_weights);
        scratch.queries.take(self.part(block.queries, head));
        scratch.grads.take(self.part(grad, head));
        let queries = block.places.len();
        for (panel, out) in scratch.grads.panels().zip(scratch.grad_values.panels_mut()) {
            add_product(lanes(weights, queries), panel, &mut out[..weights.len()]);
        }
        let scale = self.scale();
        grad_weights.as_flattened_mut().iter_mut().for_each(|grad| *grad *= scale);
        for (panel, out) in scratch.queries.panels().zip(scratch.grad_keys.panels_mut()) {
            add_product(lanes(grad_weights, queries), panel, &mut out[..grad_weights.len()]);
        }
    }
}
