//! Files of shards that are cut off, damaged, or made up: one clear error each, and no panic.

#![expect(clippy::unwrap_used, reason = "all of this is tests; clippy takes only functions marked as such for them")]

use proptest::prelude::*;
use turret_index::{GraphOrigin, OpenError, ReadError};
use turret_retrieval::revision::Revision;

use self::laws::{DIMENSION, borders, check, edited, open_as, sample, seal};

mod laws;

fn error_of(bytes: &[u8]) -> String {
    check(bytes).unwrap_err().to_string()
}

#[test]
fn the_sample_opens() {
    let opened = check(sample()).unwrap();
    assert_eq!((opened.until, opened.graph), (Revision::from_bits(60), GraphOrigin::Restored));
    // Deleted once more by the check.
    assert_eq!((opened.index.len(), opened.index.stats().paused), (23, 1));
}

#[test]
fn a_file_that_is_cut_off_at_any_border_or_elsewhere_is_refused() {
    let good = sample();
    let all = borders(good);
    assert_eq!(all.last(), Some(&good.len()));
    for border in all.into_iter().chain([0, 7, 8, 12, 63, 64, 96, good.len() - 1]) {
        for at in [border.saturating_sub(1), border, border + 1] {
            if at >= good.len() {
                continue;
            }
            let error = error_of(&good[..at]);
            assert!(error.contains("is not a shard") || error.contains("header: "), "cut at {at}: {error}");
            // The same with a header that knows: then a section is missing.
            let mut bytes = good[..at].to_vec();
            seal(&mut bytes);
            let error = error_of(&bytes);
            assert!(error.contains("is not a shard") || error.contains("header: "), "cut at {at}: {error}");
        }
    }
    error_of(&[good, &[0]].concat());
}

/// Gives the second ad whose id is a single digit the id of the first; `entry` is that of the ids, each of which its length stands before, and
/// its advertiser of four bytes behind.
fn name_alike(bytes: &mut [u8], entry: usize) {
    let mut at = u64::from_le_bytes(bytes[entry + 8..entry + 16].try_into().expect("8 bytes")) as usize;
    let mut first = None;
    loop {
        let length = usize::from(bytes[at]);
        match first {
            Some(first) if length == 1 => {
                bytes[at + 1] = first;
                return;
            }
            None if length == 1 => first = Some(bytes[at + 1]),
            Some(_) | None => {}
        }
        at += 1 + length + 2 + 4;
    }
}

#[test]
fn what_is_wrong_is_named() {
    let check = |change: &dyn Fn(&mut Vec<u8>), is_sealed: bool, expected: &str| {
        let mut bytes = sample().to_vec();
        change(&mut bytes);
        if is_sealed {
            seal(&mut bytes);
        }
        let error = error_of(&bytes);
        assert!(error.contains(expected), "{error}, expected {expected}");
    };
    let entry = |at: usize| 64 + 32 * at;
    let vectors = borders(sample())[2];
    check(&|bytes| *bytes = b"PAR1 and more than that".to_vec(), false, "is not a shard of the ad index");
    check(&|bytes| bytes[8] = 1, false, "layout version 1, this build reads 3");
    check(&|bytes| bytes[8] = 4, true, "layout version 4, this build reads 3");
    check(&|bytes| bytes[24] ^= 1, false, "bytes long where it says");
    check(&|bytes| bytes[41] ^= 1, false, "header: checksum does not match");
    check(&|bytes| bytes[12] = 5, true, "header: dimension 5, the generation's is 4");
    check(&|bytes| bytes[12..16].fill(0), true, "header: dimension 0 is not in");
    check(&|bytes| bytes[16..24].fill(0xff), true, "ads, the limit is");
    check(&|bytes| bytes[16] = 23, true, "section vectors has");
    check(&|bytes| bytes[32] = 0xff, false, "255 sections");
    check(&|bytes| bytes[vectors + 2] ^= 1, false, "section vectors: checksum does not match, it is damaged");
    check(&|bytes| bytes[vectors - 1] = 1, true, "is not zero");
    // Sizes that would overflow, or exhaust the memory.
    check(
        &|bytes| {
            (bytes[entry(1)], bytes[entry(1) + 4]) = (99, 1);
            bytes[16..24].copy_from_slice(&(1_u64 << 30).to_le_bytes());
        },
        true,
        "header: section vectors is missing",
    );
    check(&|bytes| (bytes[entry(7)], bytes[entry(7) + 4]) = (99, 1), true, "header: section probes is missing");
    check(
        &|bytes| bytes[entry(1) + 16..entry(1) + 24].fill(0xff),
        true,
        "section vectors of 18446744073709551615 bytes",
    );
    check(&|bytes| bytes[entry(2) + 8..entry(2) + 16].fill(0xff), true, "section ids of");
    check(&|bytes| bytes[entry(2)] = 77, true, "section of kind 77 is not known, and must be");
    check(&|bytes| bytes[entry(2)] = 2, true, "section vectors is there twice");
    check(&|bytes| bytes[entry(2) + 4] = 2, true, "section ids has flags 0x2");
    check(&|bytes| bytes[vectors..vectors + 4].fill(0xff), true, "section vectors: row 0: component 0 is not finite");
    check(&|bytes| bytes[vectors..vectors + 16].fill(0), true, "section vectors: row 0: length is zero");
    let cells = u64::from_le_bytes(sample()[entry(9) + 8..entry(9) + 16].try_into().expect("8 bytes")) as usize;
    check(&|bytes| bytes[cells] = 7, true, "which is not what 7 cells of 24 rows take");
    check(&|bytes| bytes[cells + 4] = 24, true, "section cells: the cell of row 0 is 24, of 1");
    check(
        &|bytes| bytes[cells + 100..cells + 104].fill(0xff),
        true,
        "section cells: component 0 of cell 0 is not finite",
    );
    check(&|bytes| bytes[cells + 119] = 0xbf, true, "section cells: the radius of cell 0 is -");
    let long = |bytes: &mut Vec<u8>| bytes[cells + 100..cells + 104].copy_from_slice(&2f32.to_le_bytes());
    check(&long, true, "section cells: the direction of cell 0 is longer than a unit vector");
    check(&|bytes| name_alike(bytes, entry(2)), true, "is there twice");
    // The kind and how many there are come behind the name, and then each number with its row.
    let numbers = sample().windows(7).rposition(|bytes| bytes == b"min_age").expect("an attribute") + 7 + 1 + 4;
    let twice = |bytes: &mut Vec<u8>| bytes.copy_within(numbers + 8..numbers + 12, numbers + 20);
    check(&twice, true, " has two numbers");
    // A sound vector that is another: the probes find out.
    check(&|bytes| bytes[vectors + 3] ^= 0x80, true, "section probes: ");
}

#[test]
fn a_shard_of_another_generation_or_dimension_is_refused() {
    let error = open_as(sample(), "g-2", DIMENSION).unwrap_err();
    assert!(matches!(&error, OpenError::Read(ReadError::Section { .. })));
    assert!(error.to_string().ends_with("section position: is of generation \"g-1\", not of \"g-2\""), "{error}");
    let error = open_as(sample(), "g-1", 8).unwrap_err();
    assert!(error.to_string().ends_with("header: dimension 4, the generation's is 8"), "{error}");
}

#[test]
fn a_section_that_is_not_known_is_passed_over_where_it_says_so() {
    let mut bytes = sample().to_vec();
    // The graph becomes one of a kind that nobody knows.
    bytes[64 + 32 * 6] = 99;
    seal(&mut bytes);
    let opened = check(&bytes).unwrap();
    assert_eq!(opened.graph, GraphOrigin::Built { why: "the file has none".to_owned() });
    assert_eq!(opened.index.calibration().map(|calibration| calibration.queries), Some(16));
    // One of another library is none.
    let mut bytes = sample().to_vec();
    let graph = borders(&bytes)[2 * 6];
    bytes[graph] = b'X';
    seal(&mut bytes);
    let opened = check(&bytes).unwrap();
    assert!(matches!(&opened.graph, GraphOrigin::Built { why } if why.starts_with("it was not made by")));
}

#[test]
fn every_flipped_byte_is_noticed() {
    let good = sample();
    for at in 0..good.len() {
        let mut bytes = good.to_vec();
        bytes[at] ^= 0x10;
        assert!(check(&bytes).is_err(), "byte {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn one_flipped_bit_or_a_cut_anywhere_is_one_error(at in any::<prop::sample::Index>(), bit in 0u8..8, is_cut in any::<bool>()) {
        let mut bytes = sample().to_vec();
        let at = at.index(bytes.len());
        if is_cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << bit;
        }
        prop_assert!(check(&bytes).is_err());
    }

    #[test]
    fn whatever_another_program_writes_opens_or_is_one_error(edits in prop::collection::vec(any::<u8>(), 4..24)) {
        let mut bytes = edited(&edits);
        seal(&mut bytes);
        drop(check(&bytes));
    }
}
