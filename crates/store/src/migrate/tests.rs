use turret_retrieval::event::{Event, EventType};
use turret_retrieval::ids::{ItemId, UserId};

use super::*;
use crate::partition::StoreSettings;

const ROWS: usize = 20;

/// A store as version 2 left it, byte for byte: one user with a state in three records, one with a state of version 1, and
/// one whose state lacks a part.
fn left_by_version_2(dir: &std::path::Path) {
    let db = sled::open(dir).unwrap();
    let tree = |name: &str| db.open_tree(name).unwrap();
    let (users, logs, states, parts) = (tree("users"), tree("logs"), tree("states"), tree("state_parts"));
    for user in ["u1", "u2", "u3"] {
        // 29, US, no gender; 300 events.
        users.insert(user, &[2, 1, 29, 1, 2, b'U', b'S', 0, 0xac, 2]).unwrap();
        // Item 5, a checkout at 1,000, without an id.
        logs.insert(user, &[2, 1, 1, b'5', 2, 0xd0, 0x0f, 0]).unwrap();
    }
    let values = values();
    for user in ["u1", "u3"] {
        let head = (64i64, -1i64, 300u64, 64u32, Precision::F32, values.len() as u32);
        let record = postcard::to_extend(&head, vec![2]).unwrap();
        states.insert(format!("{user}\0e1"), [&record[..], &values[..4_096]].concat()).unwrap();
    }
    let part = postcard::to_extend(&(64i64, 300u64), vec![2]).unwrap();
    parts.insert([b"u1\0e1\0", &[0, 0][..]].concat(), [&part[..], &values[4_096..]].concat()).unwrap();
    states.insert("u2\0e1", &[1, 0x80, 1, 1, 2, 6, 0, 0x3c, 0, 0xb8, 0, 0]).unwrap();
    db.flush().unwrap();
}

fn values() -> Vec<u8> {
    (0..ROWS * 64).flat_map(|value| (value as f32).to_le_bytes()).collect()
}

#[test]
fn what_version_2_left_is_read_and_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    left_by_version_2(dir.path());
    // Twice: what is rewritten once is not rewritten again.
    for now_ms in [5_000, 6_000] {
        let settings = StoreSettings { events_per_user_max: 9, cache_bytes: 1 << 20 };
        let store = PartitionStore::open(dir.path(), settings, now_ms).unwrap();
        assert_eq!(store.stats().users, 3);
        let view =
            |user| store.view(&UserId::new(user).unwrap(), &EncoderVersion::new("e1").unwrap()).unwrap().unwrap();
        let whole = view("u1");
        assert_eq!((whole.log_at.at_ms(), whole.is_current()), (5_000, true));
        assert_eq!((whole.demographics.age, whole.demographics.country.as_deref()), (Some(29), Some("US")));
        let state = whole.state.unwrap();
        assert_eq!((state.made_at_ms, state.covers_until_ms), (64, -1));
        assert_eq!(state.sequence.bytes(), values());
        // It covers two events of the three hundred.
        let old = view("u2");
        assert_eq!(old.state.as_ref().unwrap().sequence.values(), [1.0, -0.5, 0.0]);
        assert!(!old.is_current());
        assert_eq!(view("u3").state, None);
        let event =
            Event { item_id: ItemId::from(5), event_type: EventType::Checkout, timestamp_ms: 1_000, event_id: None };
        assert_eq!(store.events(&UserId::new("u1").unwrap()).unwrap(), [event]);
        assert!(
            !store
                .disk
                .db
                .tree_names()
                .iter()
                .any(|name| **name == *STATES.as_bytes() || **name == *STATE_PARTS.as_bytes())
        );
    }
}
