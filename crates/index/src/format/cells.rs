//! The section of cells: how many, the cell of each row, and direction and radius of each cell.

use std::io;

use super::edges;
use super::sink::Body;
use crate::cells::Parts;

/// Directions are of unit vectors, and so far from each other; what is rounded is less. Bounds of what rows score count on it.
const LENGTH_MAX: f64 = 1.001;
const RADIUS_MAX: f32 = 2.001;

pub(crate) fn write(body: &mut Body<'_>, parts: &Parts) -> io::Result<()> {
    edges::put(body, &[parts.radii.len() as u32])?;
    edges::put(body, &parts.cell_of)?;
    for numbers in [&parts.directions, &parts.radii] {
        edges::put(body, &numbers.iter().map(|x| x.to_bits()).collect::<Vec<_>>())?;
    }
    Ok(())
}

pub(super) fn read(words: &[u32], rows: usize, dimension: usize) -> Result<Parts, String> {
    let Some((count, rest)) = words.split_first() else { return Err("ends too early".to_owned()) };
    let count = *count as usize;
    if rest.len() as u128 != rows as u128 + count as u128 * (dimension as u128 + 1) {
        return Err(format!("has {} numbers, which is not what {count} cells of {rows} rows take", words.len()));
    }
    let (cell_of, numbers) = rest.split_at(rows);
    if let Some((row, cell)) = cell_of.iter().enumerate().find(|(_, cell)| **cell as usize >= count) {
        return Err(format!("the cell of row {row} is {cell}, of {count}"));
    }
    let numbers: Vec<f32> = numbers.iter().map(|bits| f32::from_bits(*bits)).collect();
    let (directions, radii) = numbers.split_at(count * dimension);
    if let Some(at) = directions.iter().position(|x| !x.is_finite()) {
        return Err(format!("component {} of cell {} is not finite", at % dimension, at / dimension));
    }
    let length = |direction: &[f32]| direction.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if let Some(cell) = directions.chunks(dimension).position(|direction| length(direction) > LENGTH_MAX) {
        return Err(format!("the direction of cell {cell} is longer than a unit vector"));
    }
    if let Some(cell) = radii.iter().position(|radius| !(0.0..=RADIUS_MAX).contains(radius)) {
        return Err(format!("the radius of cell {cell} is {}", radii[cell]));
    }
    Ok(Parts { directions: directions.to_vec(), radii: radii.to_vec(), cell_of: cell_of.to_vec() })
}
