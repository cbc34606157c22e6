//! Matrices outside the graph, and their products by the kernel that candle uses too.
//!
//! Called here and not through candle, a product can be added to what is there, and is made by the thread that asks: what
//! is parallel is the work around it.

use std::ops::Range;

use super::affine::add_rows;

/// A matrix of `f32` of its own, row-major.
#[derive(Default)]
pub(super) struct Matrix {
    values: Vec<f32>,
    columns: usize,
}

impl Matrix {
    /// Of `values`, row by row.
    pub(super) fn new(values: Vec<f32>, columns: usize) -> Self {
        Self { values, columns }
    }

    pub(super) fn zeros(rows: usize, columns: usize) -> Self {
        Self::new(vec![0.0; rows * columns], columns)
    }

    /// Makes it one of that shape, with whatever values.
    pub(super) fn reshape(&mut self, rows: usize, columns: usize) {
        self.values.resize(rows * columns, 0.0);
        self.columns = columns;
    }

    /// Makes it one of zeros.
    pub(super) fn clear(&mut self, rows: usize, columns: usize) {
        self.values.clear();
        self.reshape(rows, columns);
    }

    /// Makes it the same as `from`.
    pub(super) fn copy(&mut self, from: &Self) {
        self.values.clear();
        self.values.extend_from_slice(&from.values);
        self.columns = from.columns;
    }

    pub(super) fn rows(&self) -> usize {
        self.values.len() / self.columns
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }

    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    pub(super) fn into_values(self) -> Vec<f32> {
        self.values
    }

    pub(super) fn view(&self) -> View<'_> {
        View::new(&self.values, self.columns)
    }

    pub(super) fn row(&self, row: usize) -> &[f32] {
        self.rows_of(row..row + 1)
    }

    pub(super) fn row_mut(&mut self, row: usize) -> &mut [f32] {
        self.rows_of_mut(row..row + 1)
    }

    /// The values of some of its rows, one row after the other.
    pub(super) fn rows_of(&self, rows: Range<usize>) -> &[f32] {
        &self.values[rows.start * self.columns..rows.end * self.columns]
    }

    pub(super) fn rows_of_mut(&mut self, rows: Range<usize>) -> &mut [f32] {
        &mut self.values[rows.start * self.columns..rows.end * self.columns]
    }

    /// Copies `from`, which has as many rows, into the columns from `first` on.
    pub(super) fn set_columns(&mut self, first: usize, from: &Self) {
        for (row, from) in self.values.chunks_exact_mut(self.columns).zip(from.values.chunks_exact(from.columns)) {
            row[first..first + from.len()].copy_from_slice(from);
        }
    }

    /// The transpose, without a copy.
    pub(super) fn transposed(&self) -> View<'_> {
        self.view().transposed()
    }

    /// The rows that `chosen` names, in its order.
    pub(super) fn gather(&self, chosen: &[usize]) -> Self {
        let mut values = Vec::with_capacity(chosen.len() * self.columns);
        chosen.iter().for_each(|row| values.extend_from_slice(self.row(*row)));
        Self::new(values, self.columns)
    }

    /// Adds the row of `from` that `chosen` names to each row of this matrix.
    pub(super) fn gather_add(&mut self, chosen: &[usize], from: &[f32]) {
        for (values, row) in self.values.chunks_exact_mut(self.columns).zip(chosen) {
            super::add_scaled(values, 1.0, &from[row * self.columns..][..self.columns]);
        }
    }

    /// Adds each row of `rows` to the row of this matrix that `chosen` names.
    pub(super) fn scatter_add(&mut self, chosen: &[usize], rows: &Self) {
        for (row, values) in chosen.iter().zip(rows.values.chunks_exact(self.columns)) {
            super::add_scaled(self.row_mut(*row), 1.0, values);
        }
    }
}

/// A matrix that lies in a slice, possibly with gaps or transposed.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    values: &'a [f32],
    shape: [usize; 2],
    strides: [usize; 2],
}

impl<'a> View<'a> {
    /// All of `values`, row-major.
    pub(super) fn new(values: &'a [f32], columns: usize) -> Self {
        Self { values, shape: [values.len() / columns, columns], strides: [columns, 1] }
    }

    /// Rows and columns.
    pub(super) fn shape(self) -> [usize; 2] {
        self.shape
    }

    pub(super) fn transposed(self) -> Self {
        let ([rows, columns], [down, across]) = (self.shape, self.strides);
        Self { shape: [columns, rows], strides: [across, down], ..self }
    }

    /// Some of its columns.
    pub(super) fn columns(self, columns: Range<usize>) -> Self {
        let values = &self.values[columns.start * self.strides[1]..];
        Self { values, shape: [self.shape[0], columns.len()], ..self }
    }

    /// The matrix product.
    pub(super) fn times(self, right: View<'_>) -> Matrix {
        let mut out = Matrix::default();
        self.times_into(right, &mut out);
        out
    }

    /// The same, in the memory of a matrix that is not needed any more.
    pub(super) fn times_into(self, right: View<'_>, out: &mut Matrix) {
        out.reshape(self.shape[0], right.shape[1]);
        self.multiply(right, &mut out.values, right.shape[1], Over::Nothing);
    }

    /// The same, over `out`, row-major.
    pub(super) fn write_times(self, right: View<'_>, out: &mut [f32]) {
        self.multiply(right, out, right.shape[1], Over::Nothing);
    }

    /// Adds the matrix product to `out`, which begins a row every `stride` values.
    pub(super) fn add_times(self, right: View<'_>, out: &mut [f32], stride: usize) {
        self.multiply(right, out, stride, Over::Sum);
    }

    /// `self right + bias`. The bias comes last, so that a row is the same to the bit whatever rows are beside it: added to
    /// what is there, a product of one row adds up in another order than one of many.
    pub(super) fn times_plus(self, right: View<'_>, bias: &[f32]) -> Matrix {
        let mut out = Matrix::default();
        self.times_plus_into(right, bias, &mut out);
        out
    }

    /// The same, in the memory of a matrix that is not needed any more.
    pub(super) fn times_plus_into(self, right: View<'_>, bias: &[f32], out: &mut Matrix) {
        self.times_into(right, out);
        add_rows(&mut out.values, bias);
    }

    /// Whether every value lies where it should.
    fn is_within(self) -> bool {
        let last = self.shape.iter().zip(self.strides).map(|(count, stride)| (count.max(&1) - 1) * stride);
        self.shape.contains(&0) || last.sum::<usize>() < self.values.len()
    }

    fn multiply(self, right: View<'_>, out: &mut [f32], stride: usize, over: Over) {
        let ([rows, inner], [right_inner, columns]) = (self.shape, right.shape);
        let fits = View { values: &*out, shape: [rows, columns], strides: [stride, 1] }.is_within();
        assert!(
            inner == right_inner && columns <= stride && fits && self.is_within() && right.is_within(),
            "{rows} x {inner} times {right_inner} x {columns}, into {} values in rows of {stride}",
            out.len(),
        );
        let strides = |view: View<'_>| view.strides.map(|stride| stride as isize);
        let ([down, across], [right_down, right_across]) = (strides(self), strides(right));
        // SAFETY: every value of the three matrices lies within its slice, as was just asserted, the rows of `out` do not
        // overlap, and nothing else reads or writes `out`, which is borrowed mutably.
        #[expect(unsafe_code, reason = "the kernel takes pointers, so that matrices may have gaps")]
        unsafe {
            gemm::gemm(
                rows,
                columns,
                inner,
                out.as_mut_ptr(),
                1,
                stride as isize,
                over == Over::Sum,
                self.values.as_ptr(),
                across,
                down,
                right.values.as_ptr(),
                right_across,
                right_down,
                1.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }
}

/// `left` [rows, inner] times the transpose of `right` [columns, inner]: [rows, columns], row by row.
pub(crate) fn times_transposed(left: &[f32], right: &[f32], inner: usize) -> Vec<f32> {
    View::new(left, inner).times(View::new(right, inner).transposed()).into_values()
}

/// What a product is written over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    /// What is there is not read.
    Nothing,
    /// A sum, which it is added to.
    Sum,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(rows: usize, columns: usize) -> Matrix {
        Matrix::new((0..rows * columns).map(|at| (at * 7 % 11) as f32 - 5.0).collect(), columns)
    }

    /// The product, value by value.
    fn plain(left: View<'_>, right: View<'_>) -> Vec<f32> {
        let at =
            |view: View<'_>, row: usize, column: usize| view.values[row * view.strides[0] + column * view.strides[1]];
        let value = |row, column| (0..left.shape[1]).map(|inner| at(left, row, inner) * at(right, inner, column)).sum();
        (0..left.shape[0]).flat_map(|row| (0..right.shape[1]).map(move |column| value(row, column))).collect()
    }

    #[test]
    fn products_of_parts_and_transposes_are_those_of_their_values() {
        let (a, b, c) = (counted(5, 7), counted(7, 6), counted(5, 9));
        for (left, right) in [
            (a.view(), b.view()),
            (a.view().columns(2..5), b.transposed().columns(1..4).transposed()),
            (a.transposed(), c.view().columns(3..8)),
            (c.view().columns(8..9), c.view().columns(0..5).transposed().columns(2..3).transposed()),
        ] {
            assert_eq!(left.times(right).values(), plain(left, right));
        }
    }

    #[test]
    fn a_product_is_added_to_some_columns_and_touches_no_others() {
        let (a, b) = (counted(3, 4), counted(4, 2));
        let mut out = [1.0; 3 * 5];
        a.view().add_times(b.view(), &mut out[3..], 5);
        let product = plain(a.view(), b.view());
        for (row, out) in out.chunks(5).enumerate() {
            assert_eq!(out, [1.0, 1.0, 1.0, 1.0 + product[2 * row], 1.0 + product[2 * row + 1]]);
        }
        assert_eq!(
            a.view().times_plus(b.view(), &[1.0, 1.0]).values(),
            product.iter().map(|x| x + 1.0).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_row_is_the_same_to_the_bit_whatever_is_beside_it() {
        let waves = |count: usize, by: f32| (0..count).map(|at| (at as f32 * by).sin()).collect::<Vec<f32>>();
        let (x, weight, bias) = (waves(300 * 80, 0.37), waves(80 * 48, 0.11), waves(48, 0.7));
        let all = View::new(&x, 80).times_plus(View::new(&weight, 48), &bias);
        for rows in [0..1, 3..5, 7..24, 40..300] {
            let some = View::new(&x[rows.start * 80..rows.end * 80], 80).times_plus(View::new(&weight, 48), &bias);
            assert!(some.values() == all.rows_of(rows.clone()), "{rows:?}");
        }
    }

    #[test]
    fn a_product_without_an_inner_dimension_is_nothing() {
        let (a, b) = (Matrix::new(Vec::new(), 3), Matrix::new(Vec::new(), 2));
        let none = View { values: a.values(), shape: [3, 0], strides: [1, 3] };
        assert_eq!(none.times(View { shape: [0, 2], ..b.view() }).values(), [0.0; 6]);
    }
}
