//! Reductions over a slice in sixteen lanes: a sum in one line cannot be vectorised, as its order is its meaning.

const LANES: usize = 16;

/// Folds `x` into lanes, then the lanes and what is left over, always in the same order.
#[inline]
fn fold(x: &[f32], start: f32, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        for (lane, x) in lanes.iter_mut().zip(block) {
            *lane = f(*lane, *x);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = f(*lane, *x);
    }
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] = f(lanes[lane], lanes[lane + half]);
        }
    }
    lanes[0]
}

/// The sum of `x`.
#[inline]
pub(super) fn sum(x: &[f32]) -> f32 {
    fold(x, 0.0, |sum, x| sum + x)
}

/// The largest of `x`, or the smallest finite number where it is empty.
#[inline]
pub(super) fn largest(x: &[f32]) -> f32 {
    fold(x, f32::MIN, |top, x| if x > top { x } else { top })
}
