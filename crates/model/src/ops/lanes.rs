//! Reductions over slices in sixteen lanes: a sum in one line cannot be vectorised, as its order is its meaning.

const LANES: usize = 16;

/// Folds `x` into lanes by `each`, then joins the lanes by `join`, always in the same order.
#[inline]
pub(super) fn fold(x: &[f32], start: f32, each: impl Fn(f32, f32) -> f32, join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        for (lane, x) in lanes.iter_mut().zip(block) {
            *lane = each(*lane, *x);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = each(*lane, *x);
    }
    joined(lanes, join)
}

#[inline]
fn joined(mut lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] = join(lanes[lane], lanes[lane + half]);
        }
    }
    lanes[0]
}

/// The sum of `x`.
#[inline]
pub(super) fn sum(x: &[f32]) -> f32 {
    fold(x, 0.0, |sum, x| sum + x, |a, b| a + b)
}

/// The largest of `x`, or the smallest finite number where it is empty.
#[inline]
pub(super) fn largest(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    fold(x, f32::MIN, larger, larger)
}

/// The inner product.
#[inline]
pub(super) fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in x.iter().zip(y) {
        for (lane, (x, y)) in lanes.iter_mut().zip(x.iter().zip(y)) {
            *lane = x.mul_add(*y, *lane);
        }
    }
    for (lane, (x, y)) in lanes.iter_mut().zip(x_rest.iter().zip(y_rest)) {
        *lane = x.mul_add(*y, *lane);
    }
    joined(lanes, |a, b| a + b)
}
