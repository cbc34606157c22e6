//! A layer's attention where many tokens ask: queries, keys and values of all of them are computed.
//!
//! Without the biases of keys and values: the one adds the same to every score of a query, so it has neither an effect nor a
//! gradient; the other is added to what is mixed, since weights add up to one.

use super::super::add_scaled;
use super::super::affine::{add_rows, column_sums};
use super::super::matrix::Matrix;
use super::attention::{Sequence, backward, forward};
use super::layer::{Layer, Memory, Part, Wanted};

impl Layer<'_> {
    /// The query, key and value of each token, [tokens, 3 width].
    fn project(self, normal: &Matrix, memory: &mut Memory) -> Matrix {
        let width = self.shape.width;
        let mut projected = std::mem::take(&mut memory.projected);
        normal.view().times_into(self.weight(Part::QueryKeyValueWeight), &mut projected);
        let bias = &self.vector(Part::QueryKeyValueBias)[..width];
        projected.values_mut().chunks_exact_mut(3 * width).for_each(|row| add_scaled(&mut row[..width], 1.0, bias));
        projected
    }

    /// What each wanted token takes from those that it sees, of the normalised input.
    pub(super) fn mix_projected(self, normal: &Matrix, wanted: &Wanted, memory: &mut Memory) -> Matrix {
        let width = self.shape.width;
        let projected = self.project(normal, memory);
        let mut mixed = memory.matrix();
        mixed.reshape(wanted.tokens.len(), width);
        for [tokens, queries] in &wanted.sequences {
            let sequence =
                Sequence { projected: projected.rows_of(tokens.clone()), places: &wanted.places[queries.clone()] };
            forward(self.shape.heads(), sequence, &mut memory.attention, mixed.rows_of_mut(queries.clone()));
        }
        memory.projected = projected;
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
        let projected = self.project(normal, memory);
        let mut grad_projected = memory.matrix();
        grad_projected.clear(normal.rows(), 3 * width);
        for [tokens, queries] in &wanted.sequences {
            let sequence =
                Sequence { projected: projected.rows_of(tokens.clone()), places: &wanted.places[queries.clone()] };
            backward(
                self.shape.heads(),
                sequence,
                grad_mixed.rows_of(queries.clone()),
                &mut memory.attention,
                grad_projected.rows_of_mut(tokens.clone()),
            );
        }
        memory.projected = projected;
        let weights = &mut sums[self.shape.range(Part::QueryKeyValueWeight)];
        normal.transposed().add_times(grad_projected.view(), weights, 3 * width);
        let biases = &mut sums[self.shape.range(Part::QueryKeyValueBias)];
        let of_queries = grad_projected.values().chunks_exact(3 * width).map(|row| &row[..width]);
        of_queries.for_each(|row| add_scaled(&mut biases[..width], 1.0, row));
        column_sums(grad_mixed.values(), &mut biases[2 * width..]);
        let mut grad_normal = memory.matrix();
        grad_projected.view().times_into(self.weight(Part::QueryKeyValueWeight).transposed(), &mut grad_normal);
        memory.keep(grad_projected);
        grad_normal
    }
}
