//! One pre-norm transformer layer over a group of whole sequences, forward and backward.

use std::ops::Range;

use candle_core::{CpuStorage, Result};

use super::super::affine::{add_rows, column_sums, gelu_and_slope};
use super::super::dropout::Mask;
use super::super::matrix::{Matrix, View};
use super::super::{add_scaled, layer_norm};
use super::attention::{Heads, Scratch, Sequence};

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
enum Part {
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

    fn range(self, part: Part) -> Range<usize> {
        let sizes = self.shapes().map(|[rows, columns]| rows * columns);
        let start = sizes[..part as usize].iter().sum();
        start..start + sizes[part as usize]
    }

    fn heads(self) -> Heads {
        Heads { width: self.width, heads: self.heads, causal: self.causal }
    }
}

/// One layer's numbers.
#[derive(Clone, Copy)]
pub(super) struct Layer<'a> {
    pub(super) shape: LayerShape,
    /// Where they lie, from `start` on, among those of all layers.
    pub(super) storage: &'a CpuStorage,
    pub(super) start: usize,
    /// The same, as values.
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

/// What the backward pass does not compute again.
pub(super) struct Tape {
    pub(super) input: Matrix,
    /// What attention mixed, for the tokens that are wanted.
    mixed: Matrix,
    /// The states between attention and the feed-forward part.
    middle: Matrix,
}

/// What the attention reads.
struct Projected {
    normal: Matrix,
    wanted_normal: Matrix,
    queries: Matrix,
    keys_values: Matrix,
}

impl Projected {
    fn sequence<'a>(&'a self, tokens: &Range<usize>, queries: &Range<usize>, wanted: &'a Wanted) -> Sequence<'a> {
        let width = self.queries.columns();
        Sequence {
            queries: &self.queries.values()[queries.start * width..queries.end * width],
            places: &wanted.places[queries.clone()],
            keys_values: &self.keys_values.values()[tokens.start * 2 * width..tokens.end * 2 * width],
        }
    }
}

impl<'a> Layer<'a> {
    fn vector(self, part: Part) -> &'a [f32] {
        &self.values[self.shape.range(part)]
    }

    fn weight(self, part: Part) -> View<'a> {
        let [rows, columns] = self.shape.shapes()[part as usize];
        View::new(self.storage, self.start + self.shape.range(part).start, rows, columns)
    }

    fn affine(self, x: View<'_>, weight: View<'_>, bias: &[f32]) -> Result<Matrix> {
        let mut out = x.times(weight)?;
        add_rows(out.values_mut(), bias);
        Ok(out)
    }

    fn norm(self, x: &Matrix, gain: Part, bias: Part) -> Matrix {
        let mut out = Matrix::zeros(x.rows(), x.columns());
        layer_norm::forward(x.values(), self.vector(gain), self.vector(bias), out.values_mut());
        out
    }

    fn project(self, input: &Matrix, wanted: &Wanted) -> Result<Projected> {
        let width = self.shape.width;
        let normal = self.norm(input, Part::AttentionGain, Part::AttentionBias);
        let wanted_normal = normal.gather(&wanted.tokens);
        let (weight, bias) = (self.weight(Part::QueryKeyValueWeight), self.vector(Part::QueryKeyValueBias));
        let queries = self.affine(wanted_normal.view(), weight.columns(0..width), &bias[..width])?;
        let keys_values = self.affine(normal.view(), weight.columns(width..3 * width), &bias[width..])?;
        Ok(Projected { normal, wanted_normal, queries, keys_values })
    }

    /// The states of the wanted tokens, and what the backward pass needs.
    pub(super) fn forward(self, input: Matrix, wanted: &Wanted, scratch: &mut Scratch) -> Result<(Matrix, Tape)> {
        let width = self.shape.width;
        let projected = self.project(&input, wanted)?;
        let mut mixed = Matrix::zeros(wanted.tokens.len(), width);
        for [tokens, queries] in &wanted.sequences {
            let sequence = projected.sequence(tokens, queries, wanted);
            let out = &mut mixed.values_mut()[queries.start * width..queries.end * width];
            self.shape.heads().forward(sequence, scratch, out);
        }
        let bias = self.vector(Part::ProjectionBias);
        let mut middle = self.affine(mixed.view(), self.weight(Part::ProjectionWeight), bias)?;
        self.masks[0].apply_rows(middle.values_mut(), width, &wanted.numbers);
        add_scaled(middle.values_mut(), 1.0, input.gather(&wanted.tokens).values());

        let normal = self.norm(&middle, Part::FeedForwardGain, Part::FeedForwardBias);
        let mut wide = self.affine(normal.view(), self.weight(Part::ExpandWeight), self.vector(Part::ExpandBias))?;
        wide.values_mut().iter_mut().for_each(|x| *x = gelu_and_slope(*x).0);
        let bias = self.vector(Part::ContractBias);
        let mut out = self.affine(wide.view(), self.weight(Part::ContractWeight), bias)?;
        self.masks[1].apply_rows(out.values_mut(), width, &wanted.numbers);
        add_scaled(out.values_mut(), 1.0, middle.values());
        Ok((out, Tape { input, mixed, middle }))
    }

    /// The gradient of the layer's input from that of its result, `grad`; adds those of the layer's numbers to `sums`.
    pub(super) fn backward(
        self,
        tape: &Tape,
        grad: Matrix,
        wanted: &Wanted,
        scratch: &mut Scratch,
        sums: &mut [f32],
    ) -> Result<Matrix> {
        let width = self.shape.width;
        let grad_middle = self.backward_feed_forward(tape, grad, wanted, sums)?;
        let mut dropped = Matrix::new(grad_middle.values().to_vec(), width);
        self.masks[0].apply_rows(dropped.values_mut(), width, &wanted.numbers);
        let grad_mixed =
            self.backward_affine(&tape.mixed, &dropped, [Part::ProjectionWeight, Part::ProjectionBias], sums)?;

        let projected = self.project(&tape.input, wanted)?;
        let mut grad_queries = Matrix::zeros(wanted.tokens.len(), width);
        let mut grad_keys_values = Matrix::zeros(tape.input.rows(), 2 * width);
        for [tokens, queries] in &wanted.sequences {
            let rows = queries.start * width..queries.end * width;
            self.shape.heads().backward(
                projected.sequence(tokens, queries, wanted),
                &grad_mixed.values()[rows.clone()],
                scratch,
                &mut grad_queries.values_mut()[rows],
                &mut grad_keys_values.values_mut()[tokens.start * 2 * width..tokens.end * 2 * width],
            );
        }
        let grad_normal = self.backward_projected(&projected, &grad_queries, &grad_keys_values, wanted, sums)?;
        let mut grad_input =
            self.backward_norm(&tape.input, &grad_normal, [Part::AttentionGain, Part::AttentionBias], sums);
        grad_input.scatter_add(&wanted.tokens, &grad_middle);
        Ok(grad_input)
    }

    fn backward_feed_forward(self, tape: &Tape, grad: Matrix, wanted: &Wanted, sums: &mut [f32]) -> Result<Matrix> {
        let width = self.shape.width;
        let normal = self.norm(&tape.middle, Part::FeedForwardGain, Part::FeedForwardBias);
        let mut wide = self.affine(normal.view(), self.weight(Part::ExpandWeight), self.vector(Part::ExpandBias))?;
        let mut slope = Matrix::zeros(wide.rows(), wide.columns());
        for (x, slope) in wide.values_mut().iter_mut().zip(slope.values_mut()) {
            (*x, *slope) = gelu_and_slope(*x);
        }
        let mut dropped = Matrix::new(grad.values().to_vec(), width);
        self.masks[1].apply_rows(dropped.values_mut(), width, &wanted.numbers);
        let mut grad_wide = self.backward_affine(&wide, &dropped, [Part::ContractWeight, Part::ContractBias], sums)?;
        grad_wide.values_mut().iter_mut().zip(slope.values()).for_each(|(grad, slope)| *grad *= slope);
        let grad_normal = self.backward_affine(&normal, &grad_wide, [Part::ExpandWeight, Part::ExpandBias], sums)?;
        let norm = [Part::FeedForwardGain, Part::FeedForwardBias];
        let mut grad_middle = self.backward_norm(&tape.middle, &grad_normal, norm, sums);
        add_scaled(grad_middle.values_mut(), 1.0, grad.values());
        Ok(grad_middle)
    }

    /// The gradient of `x` where `grad` is that of `x W + b`.
    fn backward_affine(self, x: &Matrix, grad: &Matrix, parts: [Part; 2], sums: &mut [f32]) -> Result<Matrix> {
        let [weight, bias] = parts;
        add_scaled(&mut sums[self.shape.range(weight)], 1.0, x.transposed().times(grad.view())?.values());
        column_sums(grad.values(), &mut sums[self.shape.range(bias)]);
        grad.view().times(self.weight(weight).transposed())
    }

    fn backward_norm(self, x: &Matrix, grad: &Matrix, parts: [Part; 2], sums: &mut [f32]) -> Matrix {
        let mut out = Matrix::zeros(x.rows(), x.columns());
        let gain = self.vector(parts[0]);
        // The bias lies behind the gain.
        let both = self.shape.range(parts[0]).start..self.shape.range(parts[1]).end;
        let (grad_gain, grad_bias) = sums[both].split_at_mut(gain.len());
        layer_norm::backward(x.values(), gain, grad.values(), out.values_mut(), grad_gain, grad_bias);
        out
    }

    /// The gradient of the normalised input, from those of queries, keys and values.
    fn backward_projected(
        self,
        projected: &Projected,
        grad_queries: &Matrix,
        grad_keys_values: &Matrix,
        wanted: &Wanted,
        sums: &mut [f32],
    ) -> Result<Matrix> {
        let width = self.shape.width;
        let weight = self.weight(Part::QueryKeyValueWeight);
        let of_queries = projected.wanted_normal.transposed().times(grad_queries.view())?;
        let of_keys_values = projected.normal.transposed().times(grad_keys_values.view())?;
        let rows = of_queries.values().chunks_exact(width).zip(of_keys_values.values().chunks_exact(2 * width));
        for (sums, (queries, keys_values)) in
            sums[self.shape.range(Part::QueryKeyValueWeight)].chunks_exact_mut(3 * width).zip(rows)
        {
            add_scaled(&mut sums[..width], 1.0, queries);
            add_scaled(&mut sums[width..], 1.0, keys_values);
        }
        let (queries, keys_values) = sums[self.shape.range(Part::QueryKeyValueBias)].split_at_mut(width);
        column_sums(grad_queries.values(), queries);
        column_sums(grad_keys_values.values(), keys_values);
        let mut grad = grad_keys_values.view().times(weight.columns(width..3 * width).transposed())?;
        grad.scatter_add(&wanted.tokens, &grad_queries.view().times(weight.columns(0..width).transposed())?);
        Ok(grad)
    }
}
