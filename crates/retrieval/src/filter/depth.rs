//! A bound on the nesting of filters that come over the wire, where a deep one would overflow the stack of the decoder.

use std::cell::Cell;

use serde::de::{Deserialize, Deserializer, Error};

use super::DEPTH_MAX;

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// One level of nesting, given back when it goes out of scope.
struct Level;

impl Level {
    fn enter() -> Option<Self> {
        let depth = DEPTH.get();
        // Twice what the JSON form allows: what else is nested deeper nobody wrote.
        (depth < 2 * DEPTH_MAX).then(|| {
            DEPTH.set(depth + 1);
            Self
        })
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// Decodes what is nested in a filter.
pub(super) fn deeper<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let _level = Level::enter().ok_or_else(|| D::Error::custom("nested too deeply"))?;
    T::deserialize(deserializer)
}

#[cfg(test)]
mod tests {
    use super::super::Filter;

    #[test]
    fn a_filter_that_is_nested_without_end_is_refused_and_a_deep_one_is_not() {
        // One byte a level: the variant of `not`.
        assert!(postcard::from_bytes::<Filter>(&[2; 1 << 20]).is_err());
        let mut filter = Filter::And(vec![]);
        (0..super::DEPTH_MAX).for_each(|_| filter = Filter::Not(Box::new(filter.clone())));
        let bytes = postcard::to_stdvec(&filter).unwrap();
        assert_eq!(postcard::from_bytes::<Filter>(&bytes), Ok(filter));
    }
}
