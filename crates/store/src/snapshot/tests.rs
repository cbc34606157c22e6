use turret_retrieval::event::EventType;
use turret_retrieval::ids::{EncoderVersion, ItemId};
use turret_retrieval::state::{Precision, SequenceState};

use super::*;

fn user(number: u64) -> SnapshotUser {
    let event =
        Event { item_id: ItemId::from(number), event_type: EventType::AddToCart, timestamp_ms: -5, event_id: None };
    let state = StoredState {
        encoder: EncoderVersion::from(1),
        made_at_ms: 1,
        covers_until_ms: 2,
        covers: turret_retrieval::revision::Revision::NONE,
        sequence: SequenceState::new(&[0.25; 6], 3, Precision::Int8).unwrap(),
    };
    let demographics = Demographics::default();
    SnapshotUser { user: UserId::from(number), demographics, events: vec![event], state: Some(state) }
}

fn write(path: &Path, users: u64) -> Vec<u8> {
    let mut writer = SnapshotWriter::create(path).unwrap();
    (0..users).for_each(|number| writer.append(&user(number)).unwrap());
    assert_eq!(writer.finish().unwrap(), users);
    std::fs::read(path).unwrap()
}

fn read(path: &Path) -> Result<Vec<SnapshotUser>, SnapshotError> {
    let mut reader = SnapshotReader::open(path)?;
    let mut users = Vec::new();
    while let Some(user) = reader.next_user()? {
        users.push(user);
    }
    Ok(users)
}

#[test]
fn a_snapshot_reads_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users");
    for count in [0, 1, 3] {
        write(&path, count);
        assert_eq!(read(&path).unwrap(), (0..count).map(user).collect::<Vec<_>>());
    }
}

#[test]
fn a_bad_snapshot_is_one_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users");
    let good = write(&path, 2);
    let check = |bytes: &[u8], rule: &str| {
        std::fs::write(&path, bytes).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains(rule), "{error} where {rule} was expected");
    };
    check(b"", "not a user snapshot");
    check(b"PAR1 and so on", "not a user snapshot");
    check(&[&good[..8], &[7], &good[9..]].concat(), "format 7 where 2 is read");
    check(&[&good[..9], &[255; 4]].concat(), "user 0: is larger than 4 MiB");
    check(&[&good[..9], &3u32.to_le_bytes(), &[255; 3]].concat(), "user 0: is malformed");
    check(&[&good[..], &[0]].concat(), "user 2: there is more after the end");
    let end = good.len();
    check(&[&good[..end - 8], &9u64.to_le_bytes()].concat(), "user 2: the number of users");
    for length in 9..end {
        check(&good[..length], "the file is cut short");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(read(&path), Err(SnapshotError::Disk { .. })));
}
