//! Loops that vectorise: reductions in sixteen lanes, since a sum in one line has an order, and functions that are compiled
//! for the widest registers too.

/// Compiles a function twice, like the rest of the program and for AVX-512, which is taken where the processor has it. Both
/// compute the same bits: the order of sums is written down, and nothing is fused that is not written so.
///
/// What the function calls must be inlined into it, else it stays as narrow as it was.
macro_rules! wide {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $type),*) $(-> $out)? {
            #[inline(always)]
            fn as_usual($($arg: $type),*) $(-> $out)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
            fn in_512_bits($($arg: $type),*) $(-> $out)? {
                as_usual($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            if $crate::ops::has_avx_512() {
                // SAFETY: the processor has just been asked.
                #[expect(unsafe_code, reason = "a function for some processors only")]
                return unsafe { in_512_bits($($arg),*) };
            }
            as_usual($($arg),*)
        }
    };
}
pub(crate) use wide;

/// Whether the processor has what [`wide`] asks for.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn has_avx_512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

/// Values of a block.
pub(super) const LANES: usize = 16;

/// Folds `x` into lanes by `each`, then joins the lanes by `join`, always in the same order. Rests are filled up with
/// `nothing`, by which `each` changes nothing.
#[inline(always)]
pub(super) fn fold(
    x: &[f32],
    (start, nothing): (f32, f32),
    each: impl Fn(f32, f32) -> f32,
    join: impl Fn(f32, f32) -> f32,
) -> f32 {
    let mut lanes = [start; LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        lanes = std::array::from_fn(|lane| each(lanes[lane], block[lane]));
    }
    if !rest.is_empty() {
        let block = filled(rest, nothing);
        lanes = std::array::from_fn(|lane| each(lanes[lane], block[lane]));
    }
    joined(lanes, join)
}

/// A whole block: one lane at a time, all of them would go through memory.
#[inline(always)]
fn filled(rest: &[f32], nothing: f32) -> [f32; LANES] {
    let mut block = [nothing; LANES];
    block[..rest.len()].copy_from_slice(rest);
    block
}

/// Half and half, which stays in registers.
#[inline(always)]
fn joined(lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let lanes: [f32; 8] = std::array::from_fn(|lane| join(lanes[lane], lanes[lane + 8]));
    let lanes: [f32; 4] = std::array::from_fn(|lane| join(lanes[lane], lanes[lane + 4]));
    let lanes: [f32; 2] = std::array::from_fn(|lane| join(lanes[lane], lanes[lane + 2]));
    join(lanes[0], lanes[1])
}

/// The sum of `x`.
#[inline(always)]
pub(super) fn sum(x: &[f32]) -> f32 {
    fold(x, (0.0, 0.0), |sum, x| sum + x, |a, b| a + b)
}

/// The largest of `x`, or the smallest finite number where it is empty.
#[inline(always)]
pub(super) fn largest(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    fold(x, (f32::MIN, f32::MIN), larger, larger)
}

/// The inner product.
#[inline(always)]
pub(super) fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in x.iter().zip(y) {
        lanes = std::array::from_fn(|lane| x[lane].mul_add(y[lane], lanes[lane]));
    }
    if !x_rest.is_empty() {
        let (x, y) = (filled(x_rest, 0.0), filled(y_rest, 0.0));
        lanes = std::array::from_fn(|lane| x[lane].mul_add(y[lane], lanes[lane]));
    }
    joined(lanes, |a, b| a + b)
}

#[cfg(test)]
mod tests {
    use super::*;

    wide! {
        /// Of both kinds of loop: one with an order of its own, and one that is vectorised as it stands.
        fn of_products(x: &[f32], y: &mut [f32]) -> f32 {
            y.iter_mut().zip(x).for_each(|(y, x)| *y = x.mul_add(*y, 0.1));
            dot(x, y) + sum(y)
        }
    }

    #[test]
    fn wide_registers_give_the_same_bits() {
        for count in [0, 1, 15, 16, 17, 100] {
            let x: Vec<f32> = (0..count).map(|at| (at as f32 * 0.37).sin()).collect();
            let (mut y, mut expected) = (x.clone(), x.clone());
            let found = of_products(&x, &mut y);
            for (y, x) in expected.iter_mut().zip(&x) {
                *y = x.mul_add(*y, 0.1);
            }
            assert_eq!(y, expected);
            let mut lanes = [0.0f32; LANES];
            x.iter().zip(&y).enumerate().for_each(|(at, (x, y))| lanes[at % LANES] = x.mul_add(*y, lanes[at % LANES]));
            assert_eq!(found.to_bits(), (joined(lanes, |a, b| a + b) + sum(&y)).to_bits(), "{count}");
        }
    }
}
