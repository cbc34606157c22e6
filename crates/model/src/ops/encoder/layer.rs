//! One pre-norm transformer layer over a group of whole sequences, forward and backward.

use std::ops::Range;

use super::super::affine::{add_rows, column_sums, gelu_and_slope_of_sums, gelu_of_sums};
use super::super::dropout::Mask;
use super::super::matrix::{Matrix, View};
use super::super::{add_scaled, layer_norm};
use super::attention::{self, Heads};

/// The sizes of a layer, and where each of its tensors lies in one run of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayerShape {
    /// Of a hidden state.
    pub(crate) width: usize,
    /// Of the feed-forward part.
    pub(crate) feed_forward: usize,
    /// Of the attention; divides `width`.
    pub(crate) heads: usize,
    /// Whether a position sees only itself and what is before it.
    pub(crate) causal: bool,
}

/// A tensor of a layer, in the order in which they lie.
#[derive(Clone, Copy)]
pub(super) enum Part {
    AttentionGain,
    AttentionBias,
    QueryKeyValueWeight,
    QueryKeyValueBias,
    ProjectionWeight,
    ProjectionBias,
    FeedForwardGain,
    FeedForwardBias,
    ExpandWeight,
    ExpandBias,
    ContractWeight,
    ContractBias,
}

impl LayerShape {
    fn shapes(self) -> [[usize; 2]; 12] {
        let (d, f) = (self.width, self.feed_forward);
        [[1, d], [1, d], [d, 3 * d], [1, 3 * d], [d, d], [1, d], [1, d], [1, d], [d, f], [1, f], [f, d], [1, d]]
    }

    /// How many numbers a layer has.
    pub(crate) fn count(self) -> usize {
        self.shapes().iter().map(|[rows, columns]| rows * columns).sum()
    }

    pub(super) fn range(self, part: Part) -> Range<usize> {
        let sizes = self.shapes().map(|[rows, columns]| rows * columns);
        let start = sizes[..part as usize].iter().sum();
        start..start + sizes[part as usize]
    }

    pub(super) fn heads(self) -> Heads {
        Heads { width: self.width, heads: self.heads, causal: self.causal }
    }
}

/// One layer's numbers.
#[derive(Clone, Copy)]
pub(super) struct Layer<'a> {
    pub(super) shape: LayerShape,
    /// Of all its tensors, one after the other.
    pub(super) values: &'a [f32],
    /// What is dropped after attention and after the feed-forward part.
    pub(super) masks: [Mask; 2],
}

/// For which tokens of a group the result of a layer is wanted.
pub(super) struct Wanted {
    /// The tokens, within the group, ascending.
    pub(super) tokens: Vec<usize>,
    /// Where in its sequence each of them stands.
    pub(super) places: Vec<usize>,
    /// For each sequence: its tokens within the group, and which of `tokens` are its.
    pub(super) sequences: Vec<[Range<usize>; 2]>,
    /// The counters of dropout at each of `tokens` begin at its number among all tokens times the width.
    pub(super) numbers: Vec<usize>,
}

impl Wanted {
    /// Whether every sequence is asked for by one token alone.
    fn one_each(&self) -> bool {
        self.tokens.len() == self.sequences.len()
    }
}

/// What the backward pass does not compute again.
pub(super) struct Tape {
    input: Vec<f32>,
    results: Results,
}

impl Tape {
    pub(super) fn new(input: Vec<f32>, results: Results) -> Self {
        Self { input, results }
    }
}

/// What a layer computes on its way.
pub(super) struct Results {
    /// What attention mixed, for the tokens that are wanted.
    mixed: Matrix,
    /// The states between attention and the feed-forward part.
    middle: Matrix,
}

/// What groups compute one after the other, in the same memory: clearing new memory takes longer than filling it.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) attention: attention::Scratch,
    pub(super) projected: Matrix,
    normal: Matrix,
    wide: Matrix,
    slope: Matrix,
    grad_wide: Matrix,
    /// Of no use to anybody.
    spare: Vec<Matrix>,
}

impl Memory {
    /// One to be filled.
    pub(super) fn matrix(&mut self) -> Matrix {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes `matrix`, which nobody needs any more.
    pub(super) fn keep(&mut self, matrix: Matrix) {
        self.spare.push(matrix);
    }

    /// The same, of what a layer computed on its way.
    pub(super) fn keep_all(&mut self, Results { mixed, middle }: Results) {
        self.spare.extend([mixed, middle]);
    }
}

/// Rows that the feed-forward part works on at once: what they are expanded to stays in the innermost cache.
const FEED_FORWARD_ROWS: usize = 36;

const ATTENTION_NORM: [Part; 2] = [Part::AttentionGain, Part::AttentionBias];
const FEED_FORWARD_NORM: [Part; 2] = [Part::FeedForwardGain, Part::FeedForwardBias];

impl<'a> Layer<'a> {
    pub(super) fn vector(self, part: Part) -> &'a [f32] {
        &self.values[self.shape.range(part)]
    }

    pub(super) fn weight(self, part: Part) -> View<'a> {
        View::new(self.vector(part), self.shape.shapes()[part as usize][1])
    }

    /// Normalises `x`, in memory that is not needed any more.
    fn norm(self, x: &[f32], [gain, bias]: [Part; 2], memory: &mut Matrix) -> Matrix {
        let mut out = std::mem::take(memory);
        out.reshape(x.len() / self.shape.width, self.shape.width);
        layer_norm::forward(x, self.vector(gain), self.vector(bias), out.values_mut());
        out
    }

    /// The states of the wanted tokens out of `input`, those of all, and what the backward pass needs besides.
    pub(super) fn forward(self, input: &[f32], wanted: &Wanted, memory: &mut Memory) -> (Vec<f32>, Results) {
        let width = self.shape.width;
        let normal = self.norm(input, ATTENTION_NORM, &mut memory.normal);
        let mixed = if wanted.one_each() {
            self.mix_absorbed(&normal, wanted, memory)
        } else {
            self.mix_projected(&normal, wanted, memory)
        };
        let mut middle = self.affine(&mixed, [Part::ProjectionWeight, Part::ProjectionBias], memory);
        self.masks[0].apply_rows(middle.values_mut(), width, &wanted.numbers);
        middle.gather_add(&wanted.tokens, input);

        memory.normal = normal;
        let mut out = memory.matrix();
        out.reshape(middle.rows(), width);
        let chunks = out.values_mut().chunks_mut(FEED_FORWARD_ROWS * width);
        let inputs = middle.values().chunks(FEED_FORWARD_ROWS * width).zip(wanted.numbers.chunks(FEED_FORWARD_ROWS));
        chunks.zip(inputs).for_each(|(out, (middle, numbers))| self.feed_forward(middle, numbers, memory, out));
        (out.into_values(), Results { mixed, middle })
    }

    /// Fills `out` with the results of the feed-forward part for some rows.
    fn feed_forward(self, middle: &[f32], numbers: &[usize], memory: &mut Memory, out: &mut [f32]) {
        let normal = self.norm(middle, FEED_FORWARD_NORM, &mut memory.normal);
        normal.view().times_into(self.weight(Part::ExpandWeight), &mut memory.wide);
        gelu_of_sums(memory.wide.values_mut(), self.vector(Part::ExpandBias));
        memory.wide.view().write_times(self.weight(Part::ContractWeight), out);
        add_rows(out, self.vector(Part::ContractBias));
        self.masks[1].apply_rows(out, self.shape.width, numbers);
        add_scaled(out, 1.0, middle);
        memory.normal = normal;
    }

    /// The gradient of the layer's input from that of its result, `grad`; adds those of the layer's numbers to `sums`.
    pub(super) fn backward(
        self,
        tape: &Tape,
        grad: Matrix,
        wanted: &Wanted,
        memory: &mut Memory,
        sums: &mut [f32],
    ) -> Matrix {
        let width = self.shape.width;
        let grad_middle = self.backward_feed_forward(tape, grad, wanted, memory, sums);
        let mut dropped = memory.matrix();
        dropped.copy(&grad_middle);
        self.masks[0].apply_rows(dropped.values_mut(), width, &wanted.numbers);
        let mut grad_mixed = memory.matrix();
        let projection = [Part::ProjectionWeight, Part::ProjectionBias];
        self.backward_affine(&tape.results.mixed, &dropped, projection, &mut grad_mixed, sums);
        memory.keep(dropped);

        let normal = self.norm(&tape.input, ATTENTION_NORM, &mut memory.normal);
        let grad_normal = if wanted.one_each() {
            self.backward_absorbed(&normal, &grad_mixed, wanted, memory, sums)
        } else {
            self.backward_projected(&normal, &grad_mixed, wanted, memory, sums)
        };
        memory.normal = normal;
        let mut grad_input = self.backward_norm(&tape.input, grad_normal, ATTENTION_NORM, sums);
        grad_input.scatter_add(&wanted.tokens, &grad_middle);
        memory.keep(grad_mixed);
        memory.keep(grad_middle);
        grad_input
    }

    fn backward_feed_forward(
        self,
        tape: &Tape,
        grad: Matrix,
        wanted: &Wanted,
        memory: &mut Memory,
        sums: &mut [f32],
    ) -> Matrix {
        let normal = self.norm(tape.results.middle.values(), FEED_FORWARD_NORM, &mut memory.normal);
        let (mut dropped, mut grad_normal) = (memory.matrix(), memory.matrix());
        let Memory { wide, slope, grad_wide, .. } = memory;
        normal.view().times_into(self.weight(Part::ExpandWeight), wide);
        slope.reshape(wide.rows(), wide.columns());
        gelu_and_slope_of_sums(wide.values_mut(), self.vector(Part::ExpandBias), slope.values_mut());
        dropped.copy(&grad);
        self.masks[1].apply_rows(dropped.values_mut(), self.shape.width, &wanted.numbers);
        self.backward_affine(wide, &dropped, [Part::ContractWeight, Part::ContractBias], grad_wide, sums);
        grad_wide.values_mut().iter_mut().zip(slope.values()).for_each(|(grad, slope)| *grad *= slope);
        self.backward_affine(&normal, grad_wide, [Part::ExpandWeight, Part::ExpandBias], &mut grad_normal, sums);
        let mut grad_middle = self.backward_norm(tape.results.middle.values(), grad_normal, FEED_FORWARD_NORM, sums);
        add_scaled(grad_middle.values_mut(), 1.0, grad.values());
        memory.normal = normal;
        memory.keep(dropped);
        memory.keep(grad);
        grad_middle
    }

    /// `x W + b`, of two of the layer's parts.
    fn affine(self, x: &Matrix, [weight, bias]: [Part; 2], memory: &mut Memory) -> Matrix {
        let mut out = memory.matrix();
        x.view().times_plus_into(self.weight(weight), self.vector(bias), &mut out);
        out
    }

    /// Leaves the gradient of `x` in `out` where `grad` is that of [`Layer::affine`].
    fn backward_affine(self, x: &Matrix, grad: &Matrix, [weight, bias]: [Part; 2], out: &mut Matrix, sums: &mut [f32]) {
        x.transposed().add_times(grad.view(), &mut sums[self.shape.range(weight)], grad.columns());
        column_sums(grad.values(), &mut sums[self.shape.range(bias)]);
        grad.view().times_into(self.weight(weight).transposed(), out);
    }

    /// Turns the gradient of what was normalised into that of `x`.
    fn backward_norm(self, x: &[f32], mut grad: Matrix, parts: [Part; 2], sums: &mut [f32]) -> Matrix {
        let gain = self.vector(parts[0]);
        // The bias lies behind the gain.
        let both = self.shape.range(parts[0]).start..self.shape.range(parts[1]).end;
        let (grad_gain, grad_bias) = sums[both].split_at_mut(gain.len());
        layer_norm::backward(x, gain, grad.values_mut(), grad_gain, grad_bias);
        grad
    }
}
