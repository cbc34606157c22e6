//! A layer's attention where many tokens ask: queries, keys and values of all of them are computed.

use std::ops::Range;

use super::super::affine::{add_rows, column_sums};
use super::super::matrix::Matrix;
use super::attention::{Sequence, backward, forward};
use super::layer::{Layer, Memory, Part, Wanted};

/// What the attention reads.
struct Projected {
    wanted_normal: Matrix,
    queries: Matrix,
    keys_values: Matrix,
}

impl Projected {
    fn sequence<'a>(&'a self, tokens: &Range<usize>, queries: &Range<usize>, wanted: &'a Wanted) -> Sequence<'a> {
        Sequence {
            queries: self.queries.rows_of(queries.clone()),
            places: &wanted.places[queries.clone()],
            keys_values: self.keys_values.rows_of(tokens.clone()),
        }
    }
}

impl Layer<'_> {
    /// Without the biases of keys and values: the one adds the same to every score of a query, so it has neither an effect nor
    /// a gradient; the other is added to what is mixed, since weights add up to one.
    fn project(self, normal: &Matrix, wanted: &Wanted, memory: &mut Memory) -> Projected {
        let width = self.shape.width;
        let wanted_normal = normal.gather(&wanted.tokens);
        let weight = self.weight(Part::QueryKeyValueWeight);
        let bias = &self.vector(Part::QueryKeyValueBias)[..width];
        let queries = wanted_normal.view().times_plus(weight.columns(0..width), bias);
        let mut keys_values = std::mem::take(&mut memory.keys_values);
        normal.view().times_into(weight.columns(width..3 * width), &mut keys_values);
        Projected { wanted_normal, queries, keys_values }
    }

    /// What each wanted token takes from those that it sees, of the normalised input.
    pub(super) fn mix_projected(self, normal: &Matrix, wanted: &Wanted, memory: &mut Memory) -> Matrix {
        let width = self.shape.width;
        let projected = self.project(normal, wanted, memory);
        let mut mixed = Matrix::zeros(wanted.tokens.len(), width);
        for [tokens, queries] in &wanted.sequences {
            let sequence = projected.sequence(tokens, queries, wanted);
            forward(self.shape.heads(), sequence, &mut memory.attention, mixed.rows_of_mut(queries.clone()));
        }
        memory.keys_values = projected.keys_values;
        add_rows(mixed.values_mut(), &self.vector(Part::QueryKeyValueBias)[2 * width..]);
        mixed
    }

    /// The gradient of the normalised input from that of what was mixed; adds those of the layer's numbers to `sums`.
    pub(super) fn backward_projected(
        self,
        normal: &Matrix,
        grad_mixed: &Matrix,
        wanted: &Wanted,
        memory: &mut Memory,
        sums: &mut [f32],
    ) -> Matrix {
        let width = self.shape.width;
        let projected = self.project(normal, wanted, memory);
        let mut grad_queries = Matrix::zeros(wanted.tokens.len(), width);
        let mut grad_keys_values = Matrix::zeros(normal.rows(), 2 * width);
        for [tokens, queries] in &wanted.sequences {
            backward(
                self.shape.heads(),
                projected.sequence(tokens, queries, wanted),
                grad_mixed.rows_of(queries.clone()),
                &mut memory.attention,
                grad_queries.rows_of_mut(queries.clone()),
                grad_keys_values.rows_of_mut(tokens.clone()),
            );
        }
        memory.keys_values = projected.keys_values;
        let weights = &mut sums[self.shape.range(Part::QueryKeyValueWeight)];
        projected.wanted_normal.transposed().add_times(grad_queries.view(), weights, 3 * width);
        normal.transposed().add_times(grad_keys_values.view(), &mut weights[width..], 3 * width);
        let biases = &mut sums[self.shape.range(Part::QueryKeyValueBias)];
        column_sums(grad_queries.values(), &mut biases[..width]);
        column_sums(grad_mixed.values(), &mut biases[2 * width..]);
        let weight = self.weight(Part::QueryKeyValueWeight);
        let mut grad = grad_keys_values.view().times(weight.columns(width..3 * width).transposed());
        grad.scatter_add(&wanted.tokens, &grad_queries.view().times(weight.columns(0..width).transposed()));
        grad
    }
}
