//! Starting: what a node refuses to start from, and what it finds again.

use std::fs;

use prometheus::Registry;
use tempfile::TempDir;
use turret_actors::generation::{CURRENT, Generation, GenerationError, MANIFEST};
use turret_actors::metrics::Metrics;
use turret_actors::node::{Node, NodeSettings, StartError};
use turret_model::{DeviceError, DeviceName};
use turret_retrieval::event::{Event, EventType};
use turret_retrieval::ids::{EncoderVersion, ItemId};
use turret_retrieval::tier::History;

use turret_store::Appended;

use crate::world::published::{AFTER_MS, MODEL, publish, write_manifest};
use crate::world::{alone, append, ask, depot, retrieve, settings, with_node};

/// Why a node does not start from `generation`. Whatever it has started by then must have ended.
async fn refused(dir: &TempDir, generation: Generation) -> GenerationError {
    let started =
        Node::start(settings(dir), depot(&generation), generation, Metrics::new(&Registry::new()).unwrap()).await;
    let left: Vec<String> = ractor::registry::registered().into_iter().filter(|name| name.ends_with("@solo")).collect();
    assert_eq!(left, [] as [&str; 0], "actors run on");
    match started {
        Err(StartError::Generation(error)) => error,
        Err(other) => panic!("the node does not start for another reason: {other}"),
        Ok(_) => panic!("the node starts"),
    }
}

#[test]
fn a_node_does_not_start_from_a_model_that_was_not_published() {
    alone(async || {
        let dir = TempDir::new().unwrap();
        let generation = publish(dir.path(), "g-test", &MODEL);
        for file in ["model/tensors.safetensors", "model/catalogue.postcard"] {
            let path = generation.dir.join(file);
            let sound = fs::read(&path).unwrap();
            fs::write(&path, &sound[..sound.len() - 1]).unwrap();
            let error = refused(&dir, generation.clone()).await;
            assert!(matches!(&error, GenerationError::Digest { path: named, .. } if *named == path), "{error}");
            fs::remove_file(&path).unwrap();
            let error = refused(&dir, generation.clone()).await;
            assert!(matches!(&error, GenerationError::Read { path: named, .. } if *named == path), "{error}");
            fs::write(&path, &sound).unwrap();
        }
        let mut manifest = (*generation.manifest).clone();
        manifest.versions.encoder = EncoderVersion::new("enc-other").unwrap();
        write_manifest(&generation.dir, &manifest);
        let error = refused(&dir, Generation::current(dir.path()).unwrap()).await;
        assert!(matches!(error, GenerationError::Version { .. }), "{error}");
    });
}

#[test]
fn a_node_does_not_start_where_users_are_kept_in_other_partitions() {
    alone(async || {
        let dir = TempDir::new().unwrap();
        let generation = publish(dir.path(), "g-test", &MODEL);
        let (settings, published) = (settings(&dir), generation.manifest.partitions());
        let path = settings.data_dir.join("partitions.json");
        let start = async || {
            let metrics = Metrics::new(&Registry::new()).unwrap();
            Node::start(settings.clone(), depot(&generation), generation.clone(), metrics).await
        };
        start().await.unwrap().stop().await;
        assert_eq!(
            fs::read_to_string(&path).unwrap().replace(char::is_whitespace, ""),
            format!("{{\"partitions\":{published}}}")
        );
        start().await.unwrap().stop().await;
        fs::write(&path, format!("{{\"partitions\":{}}}", published * 2)).unwrap();
        let error = start().await.err().unwrap();
        assert!(error.to_string().contains("set users.partitions back and publish again"), "{error}");
        fs::write(&path, "{").unwrap();
        let error = start().await.err().unwrap();
        assert!(matches!(error, StartError::Kept { .. }), "{error}");
    });
}

#[test]
fn a_node_does_not_start_without_the_device_of_its_worker() {
    alone(async || {
        let dir = TempDir::new().unwrap();
        let generation = publish(dir.path(), "g-test", &MODEL);
        // Neither this build nor any machine has it.
        let settings = NodeSettings { inference_device: DeviceName::Cuda(999), ..settings(&dir) };
        match Node::start(settings, depot(&generation), generation, Metrics::new(&Registry::new()).unwrap()).await {
            Err(error @ StartError::Device(DeviceError::NotBuilt | DeviceError::NotOpened { .. })) => {
                assert!(error.to_string().starts_with("inference.device: "), "{error}");
            }
            Err(other) => panic!("the node does not start for another reason: {other}"),
            Ok(_) => panic!("the node starts"),
        }
    });
}

#[test]
fn a_manifest_that_is_none_is_refused_with_the_file_and_the_rule() {
    let dir = TempDir::new().unwrap();
    let open = || Generation::current(dir.path()).err().expect("it is refused").to_string();
    assert!(open().contains("no generation is published here"));
    let generation = publish(dir.path(), "g-test", &MODEL);

    let manifest = generation.dir.join(MANIFEST);
    let check = |text: &str, rule: &str| {
        fs::write(&manifest, text).unwrap();
        let error = open();
        assert!(error.contains(rule) && error.contains(MANIFEST), "`{rule}` is not in `{error}`");
    };
    let sound = fs::read_to_string(&manifest).unwrap();
    check("", "EOF");
    check(&sound[..sound.len() / 2], "EOF");
    check(&sound.replace("\"format\": 4", "\"format\": 1"), "format: is not one that this build reads");
    check(&sound.replace("shards/0001.shard", "../0001.shard"), "must stay inside the generation's directory");
    check(&sound.replace("\"format\": 4", "\"surprise\": 1"), "unknown field");
    check(&sound.replace("\"dimension\": 16", "\"dimension\": 0"), "dimension: is not in 1..=4096");
    check(&format!("{sound}{}", " ".repeat(4 << 20)), "is larger than 4194304 bytes");
    fs::write(&manifest, &sound).unwrap();
    assert!(Generation::current(dir.path()).is_ok());

    for name in ["", "../g-test", ".", "..", "g-test/../g-test", "a\0b"] {
        fs::write(dir.path().join(CURRENT), name).unwrap();
        let error = open();
        assert!(error.contains("names no generation"), "`{name}`: {error}");
    }
    fs::write(dir.path().join(CURRENT), "g-other").unwrap();
    assert!(open().contains("g-other"));
}

#[test]
fn a_node_started_again_finds_what_it_acknowledged() {
    with_node(async |world| {
        let event = |item: u64| Event {
            item_id: ItemId::from(item),
            event_type: EventType::Checkout,
            timestamp_ms: AFTER_MS + item as i64,
            event_id: None,
        };
        let events: Vec<Event> = (0..50).map(event).collect();
        assert_eq!(world.append(4, events.clone()).await.added, 50);
        world.node.stop().await;

        let (generation, settings) = (world.generation.clone(), world.settings.clone());
        let node = Node::start(settings, depot(&generation), generation, Metrics::new(&Registry::new()).unwrap())
            .await
            .unwrap();
        node.ready().await;
        // Whatever is asserted, this node must be stopped too.
        let answer = retrieve(&node.retriever, ask(Some(4), 5)).await;
        let appended = append(&node.users, 4, events).await;
        node.stop().await;
        assert_eq!(answer.unwrap().user_state.history, History::Stale);
        assert_eq!(appended, Ok(Appended { known: 50, ..Appended::default() }));
    });
}
