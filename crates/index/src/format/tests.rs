use turret_retrieval::item::Attribute;

use super::*;
use crate::fixtures::{ad, ads, clustered, keyword, unit};

fn few() -> Vec<ShardAd> {
    let words = Attribute::Keywords(vec!["US".into(), "DE".into()]);
    vec![
        ShardAd { ad: ad("b", &[("status", keyword("active"))]), embedding: unit(&[0.0, 1.0]) },
        ShardAd {
            ad: ad("a", &[("countries", words), ("min_age", Attribute::Number(18.0))]),
            embedding: unit(&[0.6, -0.8]),
        },
    ]
}

fn bytes_of(ads: &[ShardAd], dimension: usize) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    write_shard(&dir.path().join("0.shard"), dimension, ads).unwrap();
    fs::read(dir.path().join("0.shard")).unwrap()
}

fn read_bytes(bytes: &[u8]) -> Result<ShardRows, ReadError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.shard");
    fs::write(&path, bytes).unwrap();
    read_shard(&path)
}

/// Makes the digest of changed bytes right again, as another program would.
fn seal(bytes: &mut [u8]) {
    let body = bytes.len() - DIGEST_BYTES;
    let digest = Digest::of(&bytes[..body]).to_string();
    bytes[body..].copy_from_slice(digest.as_bytes());
}

#[test]
fn what_was_written_is_read_back() {
    let rows = read_bytes(&bytes_of(&few(), 2)).unwrap();
    assert_eq!(rows, ShardRows::new(2, few()).unwrap());
    let many = ads(&clustered(1, 500, 24, 5), |row| vec![("rank", Attribute::Number(row as f64))]);
    assert_eq!(read_bytes(&bytes_of(&many, 24)).unwrap(), ShardRows::new(24, many).unwrap());
}

#[test]
fn an_empty_shard_is_legal() {
    let rows = read_bytes(&bytes_of(&[], 64)).unwrap();
    assert_eq!((rows.len(), rows.dimension()), (0, 64));
}

#[test]
fn equal_ads_make_equal_files() {
    let reversed: Vec<ShardAd> = few().into_iter().rev().collect();
    assert_eq!(bytes_of(&few(), 2), bytes_of(&reversed, 2));
}

#[test]
fn writing_replaces_a_file_and_leaves_nothing_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.shard");
    write_shard(&path, 2, &few()).unwrap();
    write_shard(&path, 2, &few()[..1]).unwrap();
    assert_eq!(read_shard(&path).unwrap().len(), 1);
    let twice = [few(), few()].concat();
    assert_eq!(write_shard(&path, 2, &twice).unwrap_err().to_string(), "ad a is there twice");
    assert_eq!(read_shard(&path).unwrap().len(), 1);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_shard_that_cannot_be_written_names_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nowhere").join("0.shard");
    let error = write_shard(&path, 2, &few()).unwrap_err().to_string();
    assert!(error.starts_with(&path.display().to_string()), "{error}");
}

#[test]
fn a_damaged_file_says_how() {
    let good = bytes_of(&few(), 2);
    let check = |change: &dyn Fn(&mut Vec<u8>), expected: &str| {
        let mut bytes = good.clone();
        change(&mut bytes);
        let error = read_bytes(&bytes).unwrap_err().to_string();
        assert!(error.contains("0.shard: ") && error.contains(expected), "{error}, expected {expected}");
    };
    let length = good.len();
    check(&|bytes| bytes.clear(), "is not a shard");
    check(&|bytes| *bytes = b"PAR1 and more than that".to_vec(), "is not a shard");
    check(&|bytes| bytes.truncate(20), "20 bytes long where its header says 96");
    check(&|bytes| bytes.truncate(length - 1), &format!("{} bytes long where", length - 1));
    check(&|bytes| bytes.push(0), &format!("{} bytes long where", length + 1));
    check(&|bytes| bytes[8] = 2, "layout version 2, this build reads 1");
    check(&|bytes| bytes[12..16].fill(0), "dimension 0 is not in");
    check(&|bytes| bytes[12..16].fill(0xff), "dimension 4294967295 is not in");
    check(&|bytes| bytes[12] = 3, "where its header says");
    // Sizes that would overflow, or exhaust the memory, are refused by the length of the file.
    check(&|bytes| bytes[16..24].fill(0xff), "where its header says");
    check(&|bytes| bytes[24..32].fill(0xff), "where its header says");
    check(&|bytes| bytes[40] ^= 1, "digest does not match");
    check(&|bytes| bytes[length - 1] ^= 1, "digest does not match");
}

#[test]
fn every_flipped_byte_and_every_cut_is_noticed() {
    let good = bytes_of(&few(), 2);
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        assert!(read_bytes(&bytes).is_err(), "byte {at}");
        assert!(read_bytes(&good[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn a_well_sealed_file_with_bad_ads_is_refused() {
    let good = bytes_of(&few(), 2);
    let check = |change: &dyn Fn(&mut Vec<u8>), expected: &str| {
        let mut bytes = good.clone();
        change(&mut bytes);
        seal(&mut bytes);
        let error = read_bytes(&bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}, expected {expected}");
    };
    let set = |bytes: &mut Vec<u8>, at: usize, x: f32| bytes[at..at + 4].copy_from_slice(&x.to_le_bytes());
    check(&|bytes| set(bytes, 32, f32::NAN), "embedding of ad a: component 0 is not finite");
    check(&|bytes| set(bytes, 44, 0.0), "embedding of ad b: length is zero");
    check(&|bytes| set(bytes, 44, 7.0), "embedding of ad b: length 7 is not 1");
    // The first record begins with the length of its id, 1, and the id.
    let record = 32 + 16;
    check(&|bytes| bytes[record] = 0, "ad record 0 cannot be decoded");
    check(&|bytes| bytes[record..record + 9].fill(0xff), "ad record 0 cannot be decoded");
    check(&|bytes| bytes[record + 1] = b'b', "ad b is there twice");
    check(&|bytes| bytes[record + 1] = b'c', "ad b stands behind one with a greater id");
    // One ad less, its embedding counted to the records: bytes are left over.
    check(
        &|bytes| {
            bytes[16] = 1;
            let records = u64::from_le_bytes(bytes[24..32].try_into().unwrap()) + 8;
            bytes[24..32].copy_from_slice(&records.to_le_bytes());
        },
        "cannot be decoded",
    );
}

#[test]
fn a_missing_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = read_shard(&dir.path().join("gone.shard")).unwrap_err();
    assert!(matches!(&error, ReadError::Io { .. }) && error.to_string().contains("gone.shard"), "{error}");
    assert!(matches!(read_shard(dir.path()), Err(ReadError::Io { .. } | ReadError::Foreign { .. })));
}

#[test]
fn reading_can_be_broken_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.shard");
    write_shard(&path, 2, &few()).unwrap();
    let error = read_observed(&path, &mut |_, _| ControlFlow::Break(())).unwrap_err();
    assert!(matches!(error, ReadError::Stopped { .. }), "{error}");
    let mut seen = Vec::new();
    let observe = &mut |done, total| {
        seen.push((done, total));
        ControlFlow::Continue(())
    };
    read_observed(&path, observe).unwrap();
    assert!(seen.is_sorted() && seen.iter().all(|(done, total)| done < total), "{seen:?}");
}
