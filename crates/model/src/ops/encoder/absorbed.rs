//! A layer's attention where one token of a sequence asks, as in the last layer of a model that needs its last state: the
//! projections of keys and values are absorbed into the query and into what it takes, so that neither is ever computed.
//!
//! What becomes of the biases of keys and values is the same as where they are computed.

use std::ops::Range;

use super::super::absorbed_attention::{Look, Scratch, add_mean, backward};
use super::super::affine::{add_rows, column_sums};
use super::super::matrix::{Matrix, View};
use super::attention::Third;
use super::layer::{Layer, Memory, Part, Wanted};

/// What the wanted tokens ask.
struct Asked {
    wanted_normal: Matrix,
    queries: Matrix,
    heads: Vec<Head>,
}

/// What one head asks and gets, [wanted, width]: as wide as the tokens that it looks at.
struct Head {
    absorbed: Matrix,
    means: Matrix,
}

impl<'a> Layer<'a> {
    /// A head's columns among those of all heads.
    fn columns(self, head: usize) -> Range<usize> {
        let size = self.shape.heads().size();
        head * size..(head + 1) * size
    }

    fn third(self, third: Third) -> Range<usize> {
        let width = self.shape.width;
        third as usize * width..(third as usize + 1) * width
    }

    fn projection(self, third: Third) -> View<'a> {
        self.weight(Part::QueryKeyValueWeight).columns(self.third(third))
    }

    fn projection_bias(self, third: Third) -> &'a [f32] {
        &self.vector(Part::QueryKeyValueBias)[self.third(third)]
    }

    /// Calls `look` with each sequence's row among the wanted ones, and the tokens that it sees.
    fn each_look(self, wanted: &Wanted, mut look: impl FnMut(usize, Range<usize>)) {
        for ([tokens, row], place) in wanted.sequences.iter().zip(&wanted.places) {
            let seen = self.shape.heads().visible(*place, tokens.len());
            look(row.start, tokens.start..tokens.start + seen);
        }
    }

    fn ask(self, normal: &Matrix, wanted: &Wanted) -> Asked {
        let wanted_normal = normal.gather(&wanted.tokens);
        let queries =
            wanted_normal.view().times_plus(self.projection(Third::Query), self.projection_bias(Third::Query));
        let scale = self.shape.heads().scale();
        let mut scratch = Scratch::default();
        let ask = |head| {
            let keys = self.projection(Third::Key).columns(self.columns(head));
            let absorbed = queries.view().columns(self.columns(head)).times(keys.transposed());
            let mut means = Matrix::zeros(wanted.tokens.len(), self.shape.width);
            self.each_look(wanted, |row, tokens| {
                let look = Look { query: absorbed.row(row), events: normal.rows_of(tokens), scale };
                add_mean(look, means.row_mut(row), &mut scratch);
            });
            Head { absorbed, means }
        };
        let heads = (0..self.shape.heads).map(ask).collect();
        Asked { wanted_normal, queries, heads }
    }

    /// What each wanted token takes from those that it sees, of the normalised input.
    pub(super) fn mix_absorbed(self, normal: &Matrix, wanted: &Wanted, memory: &mut Memory) -> Matrix {
        let mut mixed = memory.matrix();
        mixed.reshape(wanted.tokens.len(), self.shape.width);
        for (head, asked) in self.ask(normal, wanted).heads.iter().enumerate() {
            let columns = self.columns(head);
            let values = self.projection(Third::Value).columns(columns.clone());
            mixed.set_columns(columns.start, &asked.means.view().times(values));
        }
        add_rows(mixed.values_mut(), self.projection_bias(Third::Value));
        mixed
    }

    /// The gradient of the normalised input from that of what was mixed; adds those of the layer's numbers to `sums`.
    pub(super) fn backward_absorbed(
        self,
        normal: &Matrix,
        grad_mixed: &Matrix,
        wanted: &Wanted,
        memory: &mut Memory,
        sums: &mut [f32],
    ) -> Matrix {
        let width = self.shape.width;
        let Asked { wanted_normal, queries, heads } = self.ask(normal, wanted);
        let (weights, biases) =
            (self.shape.range(Part::QueryKeyValueWeight), self.shape.range(Part::QueryKeyValueBias));
        let scale = self.shape.heads().scale();
        let mut grad = memory.matrix();
        grad.clear(normal.rows(), width);
        let mut grad_queries = Matrix::zeros(wanted.tokens.len(), width);
        let mut scratch = Scratch::default();
        for (head, Head { absorbed, means }) in heads.iter().enumerate() {
            let columns = self.columns(head);
            let weights = &mut sums[weights.clone()];
            let grad_head = grad_mixed.view().columns(columns.clone());
            let to_values = &mut weights[self.third(Third::Value).start + columns.start..];
            means.transposed().add_times(grad_head, to_values, 3 * width);
            let grad_means = grad_head.times(self.projection(Third::Value).columns(columns.clone()).transposed());
            let mut grad_absorbed = Matrix::zeros(wanted.tokens.len(), width);
            self.each_look(wanted, |row, tokens| {
                let look = Look { query: absorbed.row(row), events: normal.rows_of(tokens.clone()), scale };
                let grads = (grad_absorbed.row_mut(row), grad.rows_of_mut(tokens));
                backward(look, grad_means.row(row), grads, &mut scratch);
            });
            let to_keys = &mut weights[self.third(Third::Key).start + columns.start..];
            grad_absorbed.transposed().add_times(queries.view().columns(columns.clone()), to_keys, 3 * width);
            let keys = self.projection(Third::Key).columns(columns.clone());
            grad_absorbed.view().add_times(keys, &mut grad_queries.values_mut()[columns.start..], width);
        }
        wanted_normal.transposed().add_times(grad_queries.view(), &mut sums[weights], 3 * width);
        let biases = &mut sums[biases];
        column_sums(grad_queries.values(), &mut biases[self.third(Third::Query)]);
        column_sums(grad_mixed.values(), &mut biases[self.third(Third::Value)]);
        grad.scatter_add(&wanted.tokens, &grad_queries.view().times(self.projection(Third::Query).transposed()));
        grad
    }
}
