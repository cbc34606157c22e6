//! A refresh in a process that is killed, again and again: everybody's state is made, and at most one chunk is encoded twice.
//!
//! The child is this test binary again, told by an environment variable what to do: a node whose worker tells whom it encodes.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use prometheus::Registry;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tempfile::TempDir;
use turret_actors::generation::Generation;
use turret_actors::groups;
use turret_actors::inference_worker::Msg;
use turret_actors::inference_worker::encoder;
use turret_actors::metrics::Metrics;
use turret_actors::node::Node;
use turret_actors::protocol::{EncodeAsk, Encoded, InferenceRequest};
use turret_actors::wire::{Inbox, Wire};
use turret_model::DeviceName;
use turret_retrieval::event::{Event, EventType};
use turret_retrieval::ids::ItemId;
use turret_retrieval::state::SequenceState;
use turret_store::{Change, Write};

use crate::world::published::{AFTER_MS, MODEL, USERS, publish};
use crate::world::{alone, depot, settings, until};

const DIR: &str = "TURRET_TEST_REFRESH_DIR";
/// Users with new events, beside those who were published: more than one page of each partition.
const NEW_USERS: u64 = 6_000;
/// What encoding an event takes, as the worker says.
const EVENT_US: usize = 10;
/// What each encoder may encode twice.
const CHUNK_US: usize = 2_000;
/// Who is written at once, so that all fit into messages.
const WRITES: usize = 500;

/// A worker that tells whom it encodes, by the items of their events, before it answers.
struct Teller;

impl Actor for Teller {
    type Msg = Msg;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Msg>, message: Msg, (): &mut ()) -> Result<(), ActorProcessingErr> {
        if let Inbox::Request(InferenceRequest::Encode(ask, reply)) = message {
            let ask = ask.open()?;
            let users: Vec<&str> = ask.histories.iter().map(|events| events[0].item_id.as_str()).collect();
            tell(&format!("encode {} {}", took_us(&ask), users.join(" ")));
            let state = SequenceState::new(&[0.5; MODEL_DIMENSION], MODEL_DIMENSION, ask.precision)?;
            let states = ask.histories.iter().map(|_| Some(state.clone())).collect();
            let encoded = Encoded { states, took_us: took_us(&ask) as u64, is_asked: false };
            drop(reply.send(Wire::new(Ok(encoded))));
        }
        Ok(())
    }
}

/// That of the model that is published.
const MODEL_DIMENSION: usize = 16;

fn took_us(ask: &EncodeAsk) -> usize {
    EVENT_US * ask.histories.len() * ask.histories.iter().map(Vec::len).max().unwrap_or(0)
}

/// Not through print!, which the test harness captures.
fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
}

/// One to three events of a user.
fn events(user: u64) -> Vec<Event> {
    let event = |at| Event {
        item_id: ItemId::from(user),
        event_type: EventType::View,
        timestamp_ms: AFTER_MS + at as i64,
        event_id: None,
    };
    (0..=user % 3).map(event).collect()
}

fn new_users() -> impl Iterator<Item = u64> {
    USERS..USERS + NEW_USERS
}

/// Not a test by itself: what the children do.
#[test]
fn the_child_refreshes_and_tells() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let dir = Path::new(&dir);
    alone(async || {
        let generation = Generation::open(&dir.join("g-test")).unwrap();
        let (teller, _) = Actor::spawn(None, Teller, ()).await.unwrap();
        // It has no name, and so comes before the node's own.
        ractor::pg::join(groups::inference(&generation.manifest.id), vec![teller.get_cell()]);
        let metrics = Metrics::new(&Registry::new()).unwrap();
        let node = Node::start(settings(dir), depot(&generation), generation, metrics).await.unwrap();
        node.ready().await;
        let status = async || node.status_of(node.name()).await.unwrap().refresh.unwrap();
        if status().await.run == 0 {
            let writes: Vec<Write> =
                new_users().map(|user| Write { user: user.into(), change: Change::Append(events(user)) }).collect();
            for writes in writes.chunks(WRITES) {
                let written = node.users.write_all(writes.to_vec(), Duration::from_secs(30)).await.unwrap();
                assert!(written.iter().all(|(_, outcome)| outcome.is_ok()));
            }
            assert!(node.refresh().await.unwrap().started);
        }
        until("the refresh ends", async || !status().await.running).await;
        let ended = status().await;
        tell(&format!("ended {} {} {}", ended.run, ended.users_refreshed, ended.partitions_failed));
        for user in new_users() {
            let profile = node.users.profile(&user.into(), Duration::from_secs(30)).await.unwrap().unwrap();
            assert_eq!(profile.events as usize, events(user).len());
            assert!(profile.states.iter().any(|state| state.is_current), "{user}: {profile:?}");
        }
        node.stop().await;
    });
}

/// Ends with its owner.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// What a child told: whom it was asked to encode, one ask after the other, with what that takes; and how it ended.
#[derive(Debug, Default)]
struct Told {
    asks: Vec<(usize, Vec<u64>)>,
    ended: Option<String>,
}

impl Told {
    fn hear(&mut self, line: &str) {
        if let Some((_, asked)) = line.split_once("encode ") {
            let mut numbers = asked.split(' ').map(|number| number.parse::<u64>().unwrap());
            let took = numbers.next().unwrap();
            self.asks.push((took as usize, numbers.collect()));
        } else if let Some((_, ended)) = line.split_once("ended ") {
            self.ended = Some(ended.to_owned());
        }
    }

    fn users(&self) -> BTreeSet<u64> {
        let users: Vec<u64> = self.asks.iter().flat_map(|(_, users)| users).copied().collect();
        let set: BTreeSet<u64> = users.iter().copied().collect();
        assert_eq!(set.len(), users.len(), "one process encodes nobody twice");
        set
    }
}

/// Has a child refresh what is in `dir`, and kills it once it was asked to encode so often; never, where that is none.
fn child(dir: &Path, kill_after: Option<usize>) -> Told {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "cut_off::the_child_refreshes_and_tells", "--nocapture", "--test-threads=1"]);
    let mut child = Killed(command.env(DIR, dir).stdout(Stdio::piped()).spawn().unwrap());
    let mut told = Told::default();
    for line in BufReader::new(child.0.stdout.take().unwrap()).lines() {
        told.hear(&line.unwrap());
        if kill_after == Some(told.asks.len()) {
            // What it told before it died is read all the same.
            child.0.kill().unwrap();
        }
    }
    let is_well = child.0.wait().unwrap().success();
    assert!(is_well || kill_after.is_some(), "the child failed");
    told
}

#[test]
fn a_refresh_that_is_killed_makes_all_states_and_repeats_at_most_one_chunk() {
    let dir = TempDir::new().unwrap();
    publish(dir.path(), "g-test", &MODEL);
    // Behind the asks of which the partitions learn how long encoding takes.
    let lives = [Some(9), Some(12), Some(20), None].map(|asks| child(dir.path(), asks));
    let mut done = BTreeSet::new();
    for (at, life) in lives.iter().enumerate() {
        let users = life.users();
        let later: BTreeSet<u64> = lives[at + 1..].iter().flat_map(Told::users).collect();
        let repeated: BTreeSet<u64> = users.intersection(&later).copied().collect();
        let is_repeated = |(_, users): &&(usize, Vec<u64>)| users.iter().any(|user| repeated.contains(user));
        let took: usize = life.asks.iter().filter(is_repeated).map(|(took, _)| took).sum();
        assert!(
            took <= CHUNK_US * encoder::count(&settings(dir.path()).inference, DeviceName::Cpu),
            "life {at}: {took} µs of encoding are repeated, {} users",
            repeated.len()
        );
        // Those that were asked for last; what was written before stays written.
        let first = life.asks.iter().position(|ask| is_repeated(&ask)).unwrap_or(life.asks.len());
        assert!(life.asks[first..].iter().all(|ask| is_repeated(&ask)), "life {at}");
        assert!(first > 0 || life.ended.is_some(), "life {at} wrote nothing");
        done.extend(users);
    }
    assert_eq!(done, new_users().collect(), "everybody is encoded");
    let last = &lives[3];
    // The same run, and all that were not written before, and no partition was given up on.
    assert_eq!(last.ended, Some(format!("1 {} 0", last.users().len())));
    assert!(lives[..3].iter().all(|life| life.ended.is_none()), "every kill came before the end");
}
