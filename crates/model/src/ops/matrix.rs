//! Matrices outside the graph, and their products by candle's kernel.

use std::ops::Range;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Layout, Result, Shape, WithDType};

/// A matrix of `f32` of its own, row-major.
pub(super) struct Matrix {
    storage: CpuStorage,
    columns: usize,
}

impl Matrix {
    /// Of `values`, row by row.
    pub(super) fn new(values: Vec<f32>, columns: usize) -> Self {
        Self { storage: CpuStorage::F32(values), columns }
    }

    pub(super) fn zeros(rows: usize, columns: usize) -> Self {
        Self::new(vec![0.0; rows * columns], columns)
    }

    pub(super) fn rows(&self) -> usize {
        self.values().len() / self.columns
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn values(&self) -> &[f32] {
        let CpuStorage::F32(values) = &self.storage else { unreachable!("a matrix is made of f32") };
        values
    }

    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        let CpuStorage::F32(values) = &mut self.storage else { unreachable!("a matrix is made of f32") };
        values
    }

    pub(super) fn into_values(self) -> Vec<f32> {
        let CpuStorage::F32(values) = self.storage else { unreachable!("a matrix is made of f32") };
        values
    }

    pub(super) fn view(&self) -> View<'_> {
        View::new(&self.storage, 0, self.rows(), self.columns)
    }

    /// The transpose, without a copy.
    pub(super) fn transposed(&self) -> View<'_> {
        self.view().transposed()
    }

    /// The rows that `chosen` names, in its order.
    pub(super) fn gather(&self, chosen: &[usize]) -> Self {
        let mut values = Vec::with_capacity(chosen.len() * self.columns);
        for row in chosen {
            values.extend_from_slice(&self.values()[row * self.columns..][..self.columns]);
        }
        Self::new(values, self.columns)
    }

    /// Adds each row of `rows` to the row of this matrix that `chosen` names.
    pub(super) fn scatter_add(&mut self, chosen: &[usize], rows: &Self) {
        let columns = self.columns;
        for (row, values) in chosen.iter().zip(rows.values().chunks_exact(columns)) {
            super::add_scaled(&mut self.values_mut()[row * columns..][..columns], 1.0, values);
        }
    }
}

/// A matrix that lies in a storage, possibly with gaps or transposed.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    storage: &'a CpuStorage,
    start: usize,
    shape: [usize; 2],
    strides: [usize; 2],
}

impl<'a> View<'a> {
    /// Row-major, from `start` on.
    pub(super) fn new(storage: &'a CpuStorage, start: usize, rows: usize, columns: usize) -> Self {
        Self { storage, start, shape: [rows, columns], strides: [columns, 1] }
    }

    pub(super) fn transposed(self) -> Self {
        let ([rows, columns], [down, across]) = (self.shape, self.strides);
        Self { shape: [columns, rows], strides: [across, down], ..self }
    }

    /// Some of its columns.
    pub(super) fn columns(self, columns: Range<usize>) -> Self {
        Self { start: self.start + columns.start * self.strides[1], shape: [self.shape[0], columns.len()], ..self }
    }

    /// The matrix product.
    pub(super) fn times(self, right: View<'_>) -> Result<Matrix> {
        let ([rows, inner], [_, columns]) = (self.shape, right.shape);
        let product = self.storage.matmul(right.storage, (1, rows, columns, inner), &self.layout(), &right.layout())?;
        Ok(Matrix::new(f32::cpu_storage_data(product)?, columns))
    }

    fn layout(self) -> Layout {
        Layout::new(Shape::from(self.shape.to_vec()), self.strides.to_vec(), self.start)
    }
}
