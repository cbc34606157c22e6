//! Multi-head attention within one sequence, sixteen queries at a time: each in a lane of its own, so that the softmax goes
//! down the lanes and never across them.

use std::ops::Range;

use super::super::exp;
use super::super::lanes::wide;
use super::super::tile::{Lanes, Panels, Rows, WIDE, add_product, transposed_product};

/// The queries, keys and values of one sequence.
#[derive(Clone, Copy)]
pub(super) struct Sequence<'a> {
    /// [tokens, 3 width]: the query, key and value of each token.
    pub(super) projected: &'a [f32],
    /// Which tokens ask, ascending.
    pub(super) places: &'a [usize],
}

/// What tokens are projected to, and where it stands in what they are projected to, in widths.
#[derive(Clone, Copy)]
pub(super) enum Third {
    Query,
    Key,
    Value,
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

/// Makes `weights` a zero for each token and query.
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

// What is done to all lanes is written as a whole array: loops over lanes and tokens get mixed up, and then go through memory
// value by value.

/// Turns scores into weights: in each lane, those of its `visible` first tokens into their softmax, others into zeros.
#[inline(always)]
fn softmax(scores: &mut [Lanes], visible: &[u32; WIDE]) {
    let mut tops = [f32::MIN; WIDE];
    for (token, scores) in scores.iter().enumerate() {
        // Read as a whole, and one choice after the other: else each lane has a branch of its own.
        let scores = *scores;
        let seen: Lanes =
            std::array::from_fn(|lane| if (token as u32) < visible[lane] { scores[lane] } else { f32::MIN });
        tops = std::array::from_fn(|lane| if seen[lane] > tops[lane] { seen[lane] } else { tops[lane] });
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
        *weights = std::array::from_fn(|lane| weights[lane] * shares[lane]);
    }
}

/// Turns the gradients of weights into those of scores.
#[inline(always)]
fn softmax_backward(weights: &[Lanes], grads: &mut [Lanes]) {
    let mut means = [0.0f32; WIDE];
    for (weights, grads) in weights.iter().zip(&*grads) {
        means = std::array::from_fn(|lane| weights[lane].mul_add(grads[lane], means[lane]));
    }
    for (weights, grads) in weights.iter().zip(grads) {
        *grads = std::array::from_fn(|lane| weights[lane] * (grads[lane] - means[lane]));
    }
}

wide! {
    /// Mixes the values for each query into `out`, [queries, width].
    pub(super) fn forward(heads: Heads, sequence: Sequence<'_>, scratch: &mut Scratch, out: &mut [f32]) {
        let (width, tokens) = (heads.width, heads.tokens(sequence.projected));
        for head in 0..heads.heads {
            scratch.values.take(heads.part(sequence, Third::Value, head), 0..tokens);
            // From the end: where a position sees what is before it, the short block is that which sees least.
            for (places, out) in sequence.places.rchunks(WIDE).zip(out.rchunks_mut(WIDE * width)) {
                heads.attend(sequence, places, head, scratch);
                for (columns, panel) in heads.columns(head).zip(scratch.values.panels()) {
                    let mixed = transposed_product(&scratch.weights, places.len(), panel);
                    for (out, mixed) in out.chunks_exact_mut(width).zip(&mixed) {
                        out[columns.clone()].copy_from_slice(&mixed[..columns.len()]);
                    }
                }
            }
        }
    }
}

wide! {
    /// Fills `grad_projected`, which holds zeros, with the gradient of the sequence's rows from that of the mix.
    pub(super) fn backward(
        heads: Heads,
        sequence: Sequence<'_>,
        grad: &[f32],
        scratch: &mut Scratch,
        grad_projected: &mut [f32],
    ) {
        let (width, size, tokens) = (heads.width, heads.size(), heads.tokens(sequence.projected));
        for head in 0..heads.heads {
            scratch.keys.take(heads.part(sequence, Third::Key, head), 0..tokens);
            scratch.grad_keys.clear(tokens, size);
            scratch.grad_values.clear(tokens, size);
            for (places, grad) in sequence.places.rchunks(WIDE).zip(grad.rchunks(WIDE * width)) {
                heads.backward_block(sequence, places, grad, head, scratch);
                for (columns, panel) in heads.columns(head).zip(scratch.keys.panels()) {
                    let mixed = transposed_product(&scratch.grad_weights, places.len(), panel);
                    for (place, mixed) in places.iter().zip(&mixed) {
                        let out = &mut grad_projected[place * 3 * width..][columns.clone()];
                        out.copy_from_slice(&mixed[..columns.len()]);
                    }
                }
            }
            for (panels, third) in [(&scratch.grad_keys, Third::Key), (&scratch.grad_values, Third::Value)] {
                for (columns, panel) in heads.columns(head).zip(panels.panels()) {
                    let columns = third as usize * width + columns.start..third as usize * width + columns.end;
                    for (out, lanes) in grad_projected.chunks_exact_mut(3 * width).zip(panel) {
                        out[columns.clone()].copy_from_slice(&lanes[..columns.len()]);
                    }
                }
            }
        }
    }
}

impl Heads {
    /// Of a head.
    #[inline(always)]
    pub(super) fn size(self) -> usize {
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

    /// A head's columns among those of all heads, a panel at a time.
    #[inline(always)]
    fn columns(self, head: usize) -> impl Iterator<Item = Range<usize>> {
        let all = head * self.size()..(head + 1) * self.size();
        all.clone().step_by(WIDE).map(move |first| first..all.end.min(first + WIDE))
    }

    #[inline(always)]
    fn tokens(self, projected: &[f32]) -> usize {
        projected.len() / (3 * self.width)
    }

    /// What a head has of the rows of a sequence.
    #[inline(always)]
    fn part<'a>(self, sequence: Sequence<'a>, third: Third, head: usize) -> Rows<'a> {
        let values = &sequence.projected[third as usize * self.width + head * self.size()..];
        Rows { values, stride: 3 * self.width, width: self.size() }
    }

    /// What a head has of rows of `width`.
    #[inline(always)]
    fn of_mixed(self, rows: &[f32], head: usize) -> Rows<'_> {
        Rows { values: &rows[head * self.size()..], stride: self.width, width: self.size() }
    }

    /// Fills `weights` with what each of at most [`WIDE`] queries takes from each token, up to the last one that any of them
    /// sees.
    #[inline(always)]
    fn attend(self, sequence: Sequence<'_>, places: &[usize], head: usize, scratch: &mut Scratch) {
        let tokens = self.tokens(sequence.projected);
        let mut visible = [0; WIDE];
        for (visible, place) in visible.iter_mut().zip(places) {
            *visible = self.visible(*place, tokens) as u32;
        }
        let seen = visible.iter().max().map_or(0, |seen| *seen as usize);
        scratch.query_columns.take_columns(self.part(sequence, Third::Query, head), places, self.scale());
        zeroed(&mut scratch.weights, seen);
        for panel in scratch.query_columns.panels() {
            add_product(self.part(sequence, Third::Key, head), panel, &mut scratch.weights);
        }
        softmax(&mut scratch.weights, &visible);
    }

    /// Adds to the gradients of keys and values, and leaves that of the block's scores in `grad_weights`.
    #[inline(always)]
    fn backward_block(
        self,
        sequence: Sequence<'_>,
        places: &[usize],
        grad: &[f32],
        head: usize,
        scratch: &mut Scratch,
    ) {
        self.attend(sequence, places, head, scratch);
        let Scratch { weights, grad_weights, .. } = scratch;
        let queries = places.len();
        let mut numbers = [0; WIDE];
        numbers.iter_mut().enumerate().for_each(|(number, at)| *at = number);
        scratch.grad_columns.take_columns(self.of_mixed(grad, head), &numbers[..queries], 1.0);
        zeroed(grad_weights, weights.len());
        for panel in scratch.grad_columns.panels() {
            add_product(self.part(sequence, Third::Value, head), panel, grad_weights);
        }
        softmax_backward(weights, grad_weights);
        scratch.queries.take(self.part(sequence, Third::Query, head), places.iter().copied());
        scratch.grads.take(self.of_mixed(grad, head), 0..queries);
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
