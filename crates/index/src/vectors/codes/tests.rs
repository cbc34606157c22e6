use super::*;
use crate::fixtures::clustered;

#[test]
fn codes_and_their_rest_make_up_the_vector() {
    let tiny: Vec<f32> = vec![1e-40, -3e-40, 0.0];
    let mut vectors = vec![vec![0.0; 5], tiny, vec![1.0], vec![-0.5, 0.25, f32::MIN_POSITIVE], vec![3e38, -3e38]];
    vectors.extend(clustered(1, 50, 33, 3).iter().map(|vector| vector.as_slice().to_vec()));
    for vector in vectors {
        let quantised = quantise(&vector);
        let said: Vec<f64> = quantised.codes.iter().map(|code| f64::from(quantised.scale) * f64::from(*code)).collect();
        let rest: f64 = vector.iter().zip(&said).map(|(x, said)| (f64::from(*x) - said).powi(2)).sum();
        let length: f64 = said.iter().map(|said| said.powi(2)).sum();
        assert!(rest.sqrt() <= quantised.rest && quantised.rest <= rest.sqrt() * 1.001, "{vector:?}");
        assert!(length.sqrt() <= quantised.length && quantised.length <= length.sqrt() * 1.001, "{vector:?}");
        assert!(quantised.codes.iter().all(|code| *code != i8::MIN), "{vector:?}");
        let largest = vector.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        let far = vector.iter().zip(&said).map(|(x, said)| (f64::from(*x) - said).abs()).fold(0.0, f64::max);
        assert!(far <= f64::from(largest) / 127.0 * 0.5001 || largest < 1e-35, "{vector:?}");
    }
}

/// A row as it has its codes.
fn as_row(vector: &[f32]) -> Quantised {
    quantise_by(vector, SCALES[usize::from(place_of_scale(vector))])
}

#[test]
fn a_row_has_the_least_scale_by_which_no_code_is_too_large() {
    for largest in (0..1_000).map(|at| 1.0 / 1.005f32.powi(at)) {
        let place = usize::from(place_of_scale(&[0.0, -largest, largest / 2.0]));
        assert!(largest <= SCALES[place] * CODE_MAX || place == 0, "{largest}");
        assert!(SCALES[place + 1].is_nan() || largest > SCALES[place + 1] * CODE_MAX, "{largest}");
    }
    assert_eq!((place_of_scale(&[2.0]), place_of_scale(&[0.0])), (0, NOT_THERE - 1));
    let rows = clustered(3, 200, 64, 4);
    assert!(rows.iter().all(|row| as_row(row.as_slice()).rest <= quantise(row.as_slice()).rest * 1.3));
}

#[test]
fn no_row_exceeds_the_limits_of_its_block() {
    let rows = clustered(2, 300, 9, 4);
    let mut codes = Codes::new(9);
    for (at, row) in rows.iter().enumerate() {
        codes.set(at % 256, row.as_slice());
        let (limits, quantised) = (*codes.limits(), as_row(row.as_slice()));
        assert!(quantised.rest <= limits.rest && quantised.length <= limits.length);
        assert!(quantised.rest <= limits.rest_in_scales * f64::from(quantised.scale));
    }
    assert_eq!(codes.tiles(), 4);
    let (lines, scales) = codes.tiles_at(0..4);
    assert_eq!((lines.len(), scales.len()), (4 * 3 * TILE_LINES, 4));
    let found: Vec<f32> = scales.iter().flatten().copied().collect();
    // The first rows are those that came last.
    let last = |at: usize| if at < 44 { at + 256 } else { at };
    let expected: Vec<f32> = (0..256).map(|at| as_row(rows[last(at)].as_slice()).scale).collect();
    assert_eq!(found, expected);
}

#[test]
fn rows_that_are_not_there_have_no_scale() {
    let mut codes = Codes::new(2);
    (0..65).for_each(|at| codes.set(at, &[0.6, 0.8]));
    let (_, scales) = codes.tiles_at(0..codes.tiles());
    assert_eq!(scales.iter().flatten().filter(|scale| !scale.is_nan()).count(), 65);
}
