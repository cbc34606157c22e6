use proptest::prelude::*;

use super::*;

const ALL: [Precision; 3] = [Precision::F32, Precision::F16, Precision::Int8];

/// The largest difference that keeping a value may make, where the largest of its row is `largest`.
fn tolerance(precision: Precision, value: f32, largest: f32) -> f32 {
    match precision {
        Precision::F32 => 0.0,
        Precision::F16 => value.abs() / 2_048.0 + f32::from(f16::MIN_POSITIVE_SUBNORMAL),
        Precision::Int8 => largest / 254.0 * 1.000_01,
    }
}

proptest! {
    #[test]
    fn values_come_back_as_exactly_as_their_precision_says(
        dimension in 1usize..40,
        rows in 1usize..20,
        seed in prop::collection::vec(-50f32..50.0, 800),
    ) {
        let values = &seed[..rows * dimension];
        for precision in ALL {
            let state = SequenceState::new(values, dimension, precision).unwrap();
            prop_assert_eq!((state.rows(), state.dimension(), state.precision()), (rows, dimension, precision));
            prop_assert_eq!(state.bytes().len(), rows * precision.row_bytes(dimension));
            let read = state.values();
            for (row, found) in values.chunks(dimension).zip(read.chunks(dimension)) {
                let largest = row.iter().fold(0f32, |largest, value| largest.max(value.abs()));
                for (value, found) in row.iter().zip(found) {
                    let off = (value - found).abs();
                    prop_assert!(off <= tolerance(precision, *value, largest), "{value} became {found} at {precision:?}");
                }
            }
            let bytes = postcard::to_stdvec(&state).unwrap();
            prop_assert_eq!(postcard::from_bytes::<SequenceState>(&bytes).unwrap(), state);
        }
    }

    #[test]
    fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(state) = postcard::from_bytes::<SequenceState>(&bytes) {
            prop_assert_eq!(state.values().len(), state.rows() * state.dimension());
        }
    }
}

#[test]
fn a_state_is_the_bytes_it_was() {
    let check = |precision, golden: &[u8]| {
        let state = SequenceState::new(&[1.0, -0.25, 0.0, 0.0], 2, precision).unwrap();
        assert_eq!(postcard::to_stdvec(&state).unwrap(), golden, "{precision:?}");
    };
    check(Precision::F32, &[2, 0, 16, 0, 0, 0x80, 0x3f, 0, 0, 0x80, 0xbe, 0, 0, 0, 0, 0, 0, 0, 0]);
    check(Precision::F16, &[2, 1, 8, 0, 0x3c, 0, 0xb4, 0, 0, 0, 0]);
    // 1/127, then 127 and -32 steps of it; then a row of zeros.
    check(Precision::Int8, &[2, 2, 12, 0x04, 0x02, 0x01, 0x3c, 127, 224, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn what_is_no_state_is_refused_with_the_rule() {
    let check = |values: &[f32], dimension, precision, rule: &str| {
        let error = SequenceState::new(values, dimension, precision).unwrap_err();
        assert_eq!(error.to_string(), rule);
    };
    check(&[], 2, Precision::F16, "0 values are not one or more rows of 2");
    check(&[0.5; 3], 2, Precision::F16, "3 values are not one or more rows of 2");
    check(&[0.5; 3], 0, Precision::F16, "dimension 0 is not in 1..=4096");
    check(&[0.5; 3], 4_097, Precision::F16, "dimension 4097 is not in 1..=4096");
    check(&[0.5, f32::NAN], 2, Precision::F32, "value 1 is not finite at f32");
    check(&[f32::INFINITY, 0.0], 2, Precision::Int8, "value 0 is not finite at int8");
    check(&[70_000.0], 1, Precision::F16, "value 0 is not finite at f16");
    let long = vec![0.5; 481 * 64];
    check(&long, 64, Precision::F16, "481 rows of 64 values at f16 are 61568 bytes, the limit is 61440");
    assert!(SequenceState::new(&long, 64, Precision::Int8).is_ok());
    assert!(SequenceState::new(&long[..480 * 64], 64, Precision::F16).is_ok());
}

#[test]
fn bytes_that_hold_no_state_are_refused() {
    let refused = |dimension: u32, precision: u8, bytes: &[u8]| {
        let mut written = postcard::to_stdvec(&(dimension, precision)).unwrap();
        written.extend(postcard::to_stdvec(bytes).unwrap());
        assert!(postcard::from_bytes::<SequenceState>(&written).is_err(), "[_, {dimension}] of {} bytes", bytes.len());
    };
    refused(0, 1, &[]);
    refused(2, 1, &[]);
    refused(2, 1, &[0; 5]);
    refused(2, 2, &[0; 5]);
    refused(2, 3, &[0; 4]);
    refused(u32::MAX, 2, &[0; 4]);
    refused(2, 0, &vec![0; STATE_BYTES_MAX + 8]);
}
