use std::collections::BTreeMap;

use tempfile::TempDir;
use turret_data::{PartitionHeader, PartitionWriter};
use turret_retrieval::event::{Event, EventType};
use turret_retrieval::hashing::partition_of;
use turret_retrieval::ids::{EncoderVersion, EventId, GenerationId, ItemId, UserId};
use turret_retrieval::kept::{Erased, StoredState};
use turret_retrieval::revision::Revision;
use turret_retrieval::state::{Precision, SequenceState};
use turret_retrieval::user::Demographics;

use super::*;

const PARTITIONS: u32 = 4;
const USERS: u64 = 700;

fn go_on(_: Step) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// The partitions of node `name`, of `nodes`, whose data is in `dir`.
fn node(dir: &Path, name: &str, nodes: &[&str], partitions: u32) -> NodePartitions {
    let mut text = format!("data_dir = {dir:?}\n[users]\npartitions = {partitions}\n");
    text.push_str("[cluster]\ncookie = \"only-of-this-test-no-secret\"\n");
    for (number, name) in (1..).zip(nodes) {
        let address = |port: u32| format!("\"127.0.0.1:{}\"", 10_000 + 10 * number + port);
        let (http, admin, cluster) = (address(1), address(2), address(3));
        text.push_str(&format!("[[nodes]]\nname = \"{name}\"\nhttp = {http}\nadmin = {admin}\ncluster = {cluster}\n"));
        if number > 1 {
            text.push_str("roles = [\"gateway\", \"index\", \"users\", \"inference\"]\n");
        }
    }
    let config = Config::parse(&text, Path::new("test.toml")).unwrap();
    let own = config.nodes.iter().find(|node| node.name.as_str() == name).unwrap();
    NodePartitions::of(&config, own)
}

fn only(dir: &Path) -> NodePartitions {
    node(dir, "a", &["a"], PARTITIONS)
}

fn state(encoder: u64, rows: usize, precision: Precision) -> StoredState {
    let values: Vec<f32> = (0..rows * 64).map(|x| x as f32 / 7.0 - 3.0).collect();
    let sequence = SequenceState::new(&values, 64, precision).unwrap();
    let (encoder, covers) = (EncoderVersion::from(encoder), Revision::from_bits(20 + encoder));
    StoredState { encoder, made_at_ms: 5, covers_until_ms: 6, covers, sequence }
}

/// A user of one of five kinds.
fn user(number: u64) -> KeptUser {
    let event = |at: i64, id: Option<u64>| Event {
        item_id: ItemId::from(number),
        event_type: EventType::ALL[at as usize % 4],
        timestamp_ms: at,
        event_id: id.map(EventId::from),
    };
    let erased = Some(Erased { at: Revision::from_bits(9), watermark_ms: -1 });
    let nothing = KeptUser {
        user: UserId::new(&format!("u{number}")).unwrap(),
        demographics: Demographics::default(),
        demographics_at: Revision::NONE,
        log_at: Revision::NONE,
        erased: None,
        events: Vec::new(),
        states: Vec::new(),
    };
    let log_at = Revision::from_bits(100 + number);
    match number % 5 {
        0 => KeptUser { erased, ..nothing },
        1 => {
            let demographics = Demographics { age: Some(29), country: Some("US".into()), gender: None };
            KeptUser { demographics, demographics_at: Revision::from_bits(7), ..nothing }
        }
        2 => KeptUser { log_at, events: (0..9).map(|at| event(at, None)).collect(), ..nothing },
        3 => {
            let states = vec![state(2, 100, Precision::Int8), state(1, 1, Precision::F16)];
            KeptUser { log_at, events: vec![event(1_700_000_000_000, Some(3))], states, ..nothing }
        }
        _ => KeptUser {
            log_at,
            events: vec![event(0, None)],
            states: vec![state(3, 3, Precision::F32)],
            erased,
            ..nothing
        },
    }
}

/// Fills the stores of a node with users of every kind.
fn fill(node: &NodePartitions) {
    for partition in (0..node.partitions).map(PartitionId) {
        let store = node.open(&node.dir_of(partition)).unwrap();
        let here = (0..USERS).map(user).filter(|user| partition_of(&user.user, node.partitions) == partition);
        here.for_each(|user| store.restore(&user).unwrap());
        store.finish_restore(&[GenerationId::from(1), GenerationId::from(u64::from(partition.0))]).unwrap();
    }
}

/// The files in `dir`, by their names; none where there is no such directory.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

/// The names in `dir`.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A filled node, what was exported of it, and the directory of both.
fn exported() -> (TempDir, NodePartitions, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (first, out) = (only(&dir.path().join("first")), dir.path().join("out"));
    fill(&first);
    export(&first, &out, &mut go_on).unwrap();
    (dir, first, out)
}

fn refusal<T>(result: anyhow::Result<T>) -> String {
    format!("{:#}", result.err().expect("it is refused"))
}

#[test]
fn an_export_of_an_import_is_the_same_files() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (only(&dir.path().join("first")), only(&dir.path().join("second")));
    let (out, again) = (dir.path().join("out"), dir.path().join("again"));
    fill(&first);
    let moved = export(&first, &out, &mut go_on).unwrap();
    assert_eq!(names(&out), (0..PARTITIONS).map(|n| file_name(PartitionId(n))).collect::<Vec<_>>());
    let sums: [u64; 4] = [
        moved.iter().map(|moved| moved.users).sum(),
        moved.iter().map(|moved| moved.erased).sum(),
        moved.iter().map(|moved| moved.events).sum(),
        moved.iter().map(|moved| moved.states).sum(),
    ];
    let kinds = USERS / 5;
    assert_eq!(sums, [USERS, 2 * kinds, 11 * kinds, 3 * kinds]);

    // An empty store, which a node that was started once has left, is replaced.
    let store = second.open(&second.dir_of(PartitionId(1))).unwrap();
    store.finish_restore(&[GenerationId::from(99)]).unwrap();
    drop(store);
    let imported = import(&second, &out, &mut go_on).unwrap();
    assert_eq!(imported, Imported { partitions: moved.clone(), elsewhere: Vec::new(), missing: Vec::new() });
    assert_eq!(names(&second.dir), ["0000", "0001", "0002", "0003"]);
    assert_eq!(export(&second, &again, &mut go_on).unwrap(), moved);
    assert!(files(&again) == files(&out));
}

#[test]
fn what_is_broken_off_leaves_nothing() {
    let (dir, first, out) = exported();
    let partial = dir.path().join("partial");
    let second = only(&dir.path().join("second"));
    let breaks_at = |steps: &mut u64| {
        *steps = steps.saturating_sub(1);
        if *steps == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    for mut steps in [1, 4, 7] {
        let mut left = steps;
        let error = refusal(export(&first, &partial, &mut |_| breaks_at(&mut left)));
        assert_eq!(error, "the export was broken off", "at step {steps}");
        assert!(!partial.exists(), "at step {steps}");
        let error = refusal(import(&second, &out, &mut |_| breaks_at(&mut steps)));
        assert_eq!(error, "the import was broken off");
        assert_eq!(names(&second.dir), [""; 0]);
    }
    // What a killed process left is in nobody's way.
    fs::create_dir_all(&partial).unwrap();
    fs::write(partial.join("users-0000.parquet.tmp"), "half").unwrap();
    export(&first, &partial, &mut go_on).unwrap();
    fs::create_dir_all(second.dir.join("0000.tmp/blobs")).unwrap();
    import(&second, &partial, &mut go_on).unwrap();
    assert!(files(&partial) == files(&out));
    assert_eq!(names(&second.dir).len(), PARTITIONS as usize);
}

#[test]
fn partitions_that_are_not_empty_stay_as_they_are() {
    let (dir, first, out) = exported();
    let again = dir.path().join("again");
    // One that holds nothing but the mark of an erasure is not empty.
    let second = only(&dir.path().join("second"));
    let marked = (0..USERS).step_by(5).map(user).find(|user| partition_of(&user.user, PARTITIONS).0 == 2).unwrap();
    second.open(&second.dir_of(PartitionId(2))).unwrap().restore(&marked).unwrap();
    for (node, number) in [(&first, 0), (&second, 2)] {
        let error = refusal(import(node, &out, &mut go_on));
        let dir = node.dir_of(PartitionId(number));
        assert_eq!(error, format!("{} is not empty: an import restores, it does not merge", dir.display()));
    }
    assert_eq!(names(&second.dir), ["0002"]);
    export(&first, &again, &mut go_on).unwrap();
    assert!(files(&again) == files(&out));
}

#[test]
fn a_store_that_is_open_is_neither_exported_nor_replaced() {
    let (dir, first, out) = exported();
    let second = only(&dir.path().join("second"));
    for node in [&first, &second] {
        let path = node.dir_of(PartitionId(3));
        let _open = node.open(&path).unwrap();
        let rule = format!("{} is in use: stop node a first", path.display());
        assert_eq!(refusal(export(node, &dir.path().join("none"), &mut go_on)), rule);
        assert!(!dir.path().join("none").exists());
    }
    let _open = second.open(&second.dir_of(PartitionId(3))).unwrap();
    assert!(refusal(import(&second, &out, &mut go_on)).ends_with("0003 is in use: stop node a first"));
    assert_eq!(names(&second.dir), ["0003"]);
}

#[test]
fn a_faulty_file_is_one_error_and_leaves_the_partitions_empty() {
    let (dir, first, out) = exported();
    let last = out.join(file_name(PartitionId(3)));
    let second = only(&dir.path().join("second"));
    let check = |rule: &str| {
        let error = refusal(import(&second, &out, &mut go_on));
        let rest = error.strip_prefix(&last.display().to_string());
        assert_eq!(rest, Some(rule), "{error}");
        assert_eq!(names(&second.dir), [""; 0]);
    };
    let write = |header: PartitionHeader, users: &[KeptUser]| {
        let mut writer = PartitionWriter::create(&last, header).unwrap();
        users.iter().for_each(|user| writer.append(user).unwrap());
        writer.finish().unwrap();
    };
    let header = |partition, partitions| PartitionHeader {
        partition: PartitionId(partition),
        partitions,
        generations: Vec::new(),
    };
    write(header(3, 5), &[]);
    check(": is of 5 partitions, and users.partitions is 4");
    write(header(2, 4), &[]);
    check(": is of partition 2, by its name of 3");
    // A log that no store would hold is found when it is put back.
    let mut here: Vec<KeptUser> =
        (0..USERS).map(user).filter(|user| partition_of(&user.user, PARTITIONS).0 == 3).take(3).collect();
    here.sort_by(|a, b| a.user.cmp(&b.user));
    let long = |at: i64| Event {
        item_id: ItemId::new(&"x".repeat(128)).unwrap(),
        event_type: EventType::View,
        timestamp_ms: at,
        event_id: None,
    };
    here[1] = KeptUser {
        events: (0..400).map(long).collect(),
        log_at: Revision::from_bits(1),
        states: Vec::new(),
        ..here[1].clone()
    };
    write(header(3, 4), &here);
    check(&format!(", row 1: user {}: events: they take more than 49152 bytes", here[1].user));
    // The beginning of a file, and so neither of those before it.
    let whole = fs::read(&last).unwrap();
    fs::write(&last, &whole[..whole.len() - 9]).unwrap();
    let error = refusal(import(&second, &out, &mut go_on));
    assert!(error.contains("users-0003.parquet: is not Parquet"), "{error}");
    assert_eq!(names(&second.dir), [""; 0]);
    drop(first);
}

#[test]
fn each_node_takes_the_files_of_what_is_placed_on_it() {
    let (dir, _, out) = exported();
    let names_of_all = ["a", "b", "c"];
    let (mut here, again) = (0, dir.path().join("again"));
    for name in names_of_all {
        let node = node(&dir.path().join("three"), name, &names_of_all, PARTITIONS);
        if node.placed.is_empty() {
            let rule = format!("{} holds no file of a partition that is placed on node {name}", out.display());
            assert_eq!(refusal(import(&node, &out, &mut go_on)), rule);
            continue;
        }
        let imported = import(&node, &out, &mut go_on).unwrap();
        assert_eq!(
            imported.partitions.iter().map(|moved| PartitionId(moved.partition)).collect::<Vec<_>>(),
            node.placed
        );
        assert_eq!(imported.elsewhere.len() + imported.partitions.len(), PARTITIONS as usize);
        here += imported.partitions.len();
        export(&node, &again, &mut go_on).unwrap();
    }
    assert_eq!(here, PARTITIONS as usize);
    assert!(files(&again) == files(&out));

    fs::remove_file(out.join(file_name(PartitionId(1)))).unwrap();
    let imported = import(&only(&dir.path().join("fourth")), &out, &mut go_on).unwrap();
    assert_eq!((imported.missing, imported.partitions.len()), (vec![1], 3));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let (dir, first, out) = exported();
    let nowhere = only(&dir.path().join("nowhere"));
    let none = dir.path().join("none");
    let error = refusal(export(&nowhere, &none, &mut go_on));
    assert_eq!(error, format!("node a has no user partitions in {}", nowhere.dir.display()));
    assert!(!none.exists() && !nowhere.dir.exists());
    let before = files(&out);
    let error = refusal(export(&first, &out, &mut go_on));
    assert_eq!(error, format!("{}/users-0000.parquet is there already", out.display()));
    assert!(files(&out) == before);
    let fewer = node(&dir.path().join("first"), "a", &["a"], 3);
    let error = refusal(export(&fewer, &none, &mut go_on));
    assert_eq!(error, format!("{} is there, and users.partitions is 3", first.dir_of(PartitionId(3)).display()));
    // Of as many partitions as there are, users who belong elsewhere.
    let more = node(&dir.path().join("first"), "a", &["a"], 8);
    let error = refusal(export(&more, &none, &mut go_on));
    assert!(error.contains("of 8, and is in 0") && !none.exists(), "{error}");
    let error = refusal(import(&nowhere, &none, &mut go_on));
    assert!(error.starts_with(&none.display().to_string()) && error.contains("No such file"), "{error}");
    fs::create_dir(&none).unwrap();
    let error = refusal(import(&nowhere, &none, &mut go_on));
    assert_eq!(error, format!("{} holds no file such as users-0000.parquet", none.display()));
    assert!(!nowhere.dir.exists());
}
