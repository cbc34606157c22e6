//! The median.

/// The middle one, or what lies between the two of them; not a number where there is none.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    let middle = |at: usize| figures.get(at).copied().unwrap_or(f64::NAN);
    f64::midpoint(middle(figures.len() / 2), middle(figures.len().saturating_sub(1) / 2))
}
