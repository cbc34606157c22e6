//! The size of filters that were not parsed here.

use turret_retrieval::filter::{DEPTH_MAX, Filter, NODES_MAX, VALUES_MAX};

/// The bound that a filter exceeds.
///
/// Filters are parsed under these bounds, but one that came over the wire was not parsed here. Depth and conditions may
/// be twice what the parser allows, so that a caller may wrap what it parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterShapeError {
    /// Nested too deep.
    #[error("nested deeper than {}", 2 * DEPTH_MAX)]
    Depth,
    /// Too many conditions.
    #[error("more than {} conditions", 2 * NODES_MAX)]
    Conditions,
    /// Too many values in one condition.
    #[error("{found} values in one condition, the limit is {VALUES_MAX}")]
    Values {
        /// How many there were.
        found: usize,
    },
}

/// Checks the size of a filter before anything recurses into it.
pub(super) fn check_shape(filter: &Filter) -> Result<(), FilterShapeError> {
    let mut conditions = 0;
    let mut left = vec![(filter, 1)];
    while let Some((filter, depth)) = left.pop() {
        conditions += 1;
        if depth > 2 * DEPTH_MAX {
            return Err(FilterShapeError::Depth);
        }
        if conditions > 2 * NODES_MAX {
            return Err(FilterShapeError::Conditions);
        }
        match filter {
            Filter::And(parts) | Filter::Or(parts) => left.extend(parts.iter().map(|part| (part, depth + 1))),
            Filter::Not(part) => left.push((part, depth + 1)),
            Filter::AnyOf { values, .. } if values.len() > VALUES_MAX => {
                return Err(FilterShapeError::Values { found: values.len() });
            }
            Filter::AnyOf { .. } | Filter::Between { .. } => {}
        }
    }
    Ok(())
}
