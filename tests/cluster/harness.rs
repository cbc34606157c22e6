//! Clusters of real nodes on loopback, one process each.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use turret_actors::placement::{partitions_of, shards_of};
use turret_retrieval::ids::{NodeName, PartitionId, ShardId};

use crate::client::{Reply, get, post, try_send};
use crate::process::{Environment, Process, Signal, text, wait_until};
use crate::world::{World, config_between, world};

/// For a node to load, for peers to join, and for a lost one to come back.
pub(crate) const READY_TIME: Duration = Duration::from_secs(60);
/// For a node that was asked to stop.
pub(crate) const STOP_TIME: Duration = Duration::from_secs(10);
/// How often a cluster is started on other ports, when somebody took one of its own meanwhile.
const ATTEMPTS: usize = 5;
/// The lines of each node's log that are shown when a test fails.
const LOG_LINES: usize = 60;

/// One node, and its process while it has one.
pub(crate) struct Node {
    /// Its name.
    pub(crate) name: &'static str,
    /// Where callers reach it, such as `http://127.0.0.1:7101`.
    pub(crate) http: String,
    /// Where operators reach it.
    pub(crate) admin: String,
    process: Option<Process>,
}

/// Nodes of one configuration, in a directory of their own. Ended and removed when dropped; when a test fails, their logs
/// are shown.
pub(crate) struct Cluster {
    /// The nodes, in the order of the configuration; the first has the control role.
    pub(crate) nodes: Vec<Node>,
    config: PathBuf,
    environment: Vec<(&'static str, String)>,
    // Dropped last: processes write to it.
    dir: TempDir,
}

impl Cluster {
    /// Starts a node for each of `names` over the world's generation, and waits until they answer as one.
    pub(crate) fn start(names: &[&'static str]) -> Self {
        Self::over(names, &world().generations(), &[])
    }

    /// The same over another depot: a directory, or the URL of an object store, which the environment may tell more of.
    pub(crate) fn over(names: &[&'static str], generations: &Path, environment: &Environment) -> Self {
        for _ in 0..ATTEMPTS {
            let mut cluster = Self::configured(names, generations);
            cluster.set_environment(environment);
            (0..names.len()).for_each(|node| cluster.restart(node));
            if cluster.came_up() {
                cluster.wait_joined();
                return cluster;
            }
        }
        panic!("no free ports were found in {ATTEMPTS} attempts");
    }

    /// One node over a copy of the world's generations, in a configuration that trains and publishes too: what is published
    /// there, no other test meets. `more` stands in the configuration as it is.
    pub(crate) fn of_its_own(name: &'static str, more: &str) -> Self {
        for _ in 0..ATTEMPTS {
            let mut cluster = Self::configured(&[name], Path::new("generations"));
            let dir = cluster.dir.path();
            copy_all(&world().generations(), &dir.join("generations"));
            let nodes = fs::read_to_string(&cluster.config).unwrap();
            let nodes = &nodes[nodes.find("\n[[nodes]]").expect("the file has nodes")..];
            fs::write(&cluster.config, format!("{}{more}{nodes}", config_between(&world().dir, dir))).unwrap();
            cluster.restart(0);
            if cluster.came_up() {
                cluster.wait_joined();
                return cluster;
            }
        }
        panic!("no free ports were found in {ATTEMPTS} attempts");
    }

    /// The directory of its configuration and its data.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A configuration on free ports, and no process yet.
    pub(crate) fn configured(names: &[&'static str], generations: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("cluster.toml");
        let mut nodes = Vec::new();
        let mut file = format!(
            "data_dir = \"{}\"\ngenerations = \"{}\"\n\n[index]\nthreads = 1\n\n[users]\npartitions = {}\n",
            text(&dir.path().join("data")),
            text(generations),
            world().manifest.partitions()
        );
        file.push_str("\n[cluster]\ncookie = \"only-of-this-test-no-secret\"\n");
        for (position, name) in names.iter().enumerate() {
            let [http, admin, cluster] = free_ports().map(|port| format!("127.0.0.1:{port}"));
            write!(file, "\n[[nodes]]\nname = \"{name}\"\nhttp = \"{http}\"\nadmin = \"{admin}\"\n").unwrap();
            if names.len() > 1 {
                writeln!(file, "cluster = \"{cluster}\"").unwrap();
            }
            if position > 0 {
                file.push_str("roles = [\"gateway\", \"index\", \"users\", \"inference\"]\n");
            }
            nodes.push(Node { name, http: format!("http://{http}"), admin: format!("http://{admin}"), process: None });
        }
        fs::write(&config, file).unwrap();
        Self { nodes, config, environment: Vec::new(), dir }
    }

    /// Where a node keeps what is its own.
    pub(crate) fn data_of(&self, node: usize) -> PathBuf {
        self.dir.path().join("data").join(self.nodes[node].name)
    }

    /// What processes that start from now on find in their environment.
    pub(crate) fn set_environment(&mut self, environment: &Environment) {
        self.environment = environment.to_vec();
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> &Path {
        &self.config
    }

    /// Starts the process of a node, as it is configured.
    pub(crate) fn restart(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        assert!(node.process.is_none(), "node {} runs", node.name);
        let arguments = ["serve", "--config", text(&self.config), "--node", node.name];
        node.process = Some(Process::start_in(self.dir.path(), node.name, &arguments, &self.environment));
    }

    /// Ends the process of a node without a warning.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].process.take().expect("the node runs").kill();
    }

    /// The running process of a node.
    pub(crate) fn process(&mut self, node: usize) -> &mut Process {
        self.nodes[node].process.as_mut().expect("the node runs")
    }

    /// Stops a node where it stands.
    pub(crate) fn pause(&mut self, node: usize) {
        self.process(node).signal(Signal::Stop);
    }

    /// Lets a paused node go on.
    pub(crate) fn resume(&mut self, node: usize) {
        self.process(node).signal(Signal::Continue);
    }

    /// Waits until every node is ready; false where one ended because its port was taken.
    fn came_up(&mut self) -> bool {
        for node in &mut self.nodes {
            let process = node.process.as_mut().expect("the node was started");
            let ready = wait_until(&format!("node {} is ready", node.name), READY_TIME, || {
                if let Some(status) = process.ended() {
                    assert!(process.log().contains("in use"), "node {} ended, {status}:\n{}", node.name, process.log());
                    return Some(false);
                }
                is_ready(&node.http).then_some(true)
            });
            if !ready {
                return false;
            }
        }
        true
    }

    /// Waits until every node reaches every other, and answers for every shard and partition.
    pub(crate) fn wait_joined(&self) {
        for node in &self.nodes {
            wait_until(&format!("node {} answers for all", node.name), READY_TIME, || node.is_joined().then_some(()));
        }
    }

    /// The shards of a node, as every node computes them.
    pub(crate) fn shards_of(&self, node: usize) -> Vec<ShardId> {
        let names = self.names();
        shards_of(&names[node], &names, world().manifest.shards())
    }

    /// The user partitions of a node.
    pub(crate) fn partitions_of(&self, node: usize) -> Vec<PartitionId> {
        let names = self.names();
        partitions_of(&names[node], &names, world().manifest.partitions())
    }

    fn names(&self) -> Vec<NodeName> {
        self.nodes.iter().map(|node| NodeName::new(node.name).unwrap()).collect()
    }

    /// Fails the test where a node's log tells of a panic.
    pub(crate) fn assert_no_panic(&self) {
        for node in &self.nodes {
            let log = node.process.as_ref().map(Process::log).unwrap_or_default();
            assert!(!log.contains("panicked"), "node {}:\n{log}", node.name);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for node in &self.nodes {
            let log = fs::read_to_string(self.dir.path().join(format!("{}.log", node.name))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
            eprintln!("--- the end of the log of node {}\n{}", node.name, last.join("\n"));
        }
    }
}

impl Node {
    /// Lets go of a process that has ended.
    pub(crate) fn forget(&mut self) {
        let ended = self.process.as_mut().is_some_and(|process| process.ended().is_some());
        assert!(ended, "node {} runs", self.name);
        self.process = None;
    }

    /// Asks for ads; the answer must come, whatever it is.
    #[track_caller]
    pub(crate) fn ask(&self, body: &Value) -> Reply {
        post(&format!("{}/v1/candidates:retrieve", self.http), body)
    }

    /// Asks for ads, and they must come, in time.
    #[track_caller]
    pub(crate) fn retrieve(&self, body: &Value) -> Value {
        retrieve_at(&self.http, body)
    }

    /// What the operators' listener says.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        get(&format!("{}/admin/status", self.admin)).expect(200).json()
    }

    fn is_joined(&self) -> bool {
        if !is_ready(&self.http) {
            return false;
        }
        let status = self.status();
        let peers = status["nodes"].as_array().cloned().unwrap_or_default();
        let is_up = |peer: &Value| peer["reachable"] == true && peer["ready"] == true;
        let answers_for = |user: String| self.ask(&request_of(&user)).expect(200).json()["status"] == "full";
        peers.iter().all(is_up) && world().user_of_each_partition().into_iter().all(answers_for)
    }
}

/// Copies a directory and what is below it.
fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn is_ready(http: &str) -> bool {
    try_send(reqwest::Method::GET, &format!("{http}/readyz"), None).is_ok_and(|reply| reply.status == 200)
}

/// Asks a node for ads, and they must come, in time.
#[track_caller]
pub(crate) fn retrieve_at(http: &str, body: &Value) -> Value {
    // What a busy machine may add to the deadline; a node that takes longer waits for something else.
    let slack = Duration::from_millis(750);
    let asked = Instant::now();
    let answer = post(&format!("{http}/v1/candidates:retrieve"), body).expect(200).json();
    let deadline = Duration::from_millis(body["deadline_ms"].as_u64().expect("tests name the deadline"));
    assert!(asked.elapsed() < deadline + slack, "{:?} for {body}: {answer:#}", asked.elapsed());
    answer
}

/// A plain request for a user, with time enough for a busy machine.
pub(crate) fn request_of(user: &str) -> Value {
    json!({ "user_id": user, "surface": "home", "k": 20, "deadline_ms": 5_000 })
}

/// What an answer found: the ads with their scores, and whether there are more.
pub(crate) fn found(answer: &Value) -> (&Value, &Value) {
    (&answer["candidates"], &answer["exhausted"])
}

/// The share of the world's ads that `shards` hold, by its manifest.
pub(crate) fn share_of(world: &World, shards: &BTreeSet<ShardId>) -> f64 {
    let held: u64 = shards.iter().map(|shard| world.manifest.shard_ads[shard.0 as usize]).sum();
    held as f64 / world.manifest.ads() as f64
}

/// Three ports that nobody listens on. Below the range from which systems take the ports of outgoing connections, so
/// that they are still free when a node is started again.
fn free_ports() -> [u16; 3] {
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 18_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes that run at the same time begin at different places.
    let start = (std::process::id().wrapping_mul(61) % u32::from(COUNT)) as u16;
    let mut ports = (0..COUNT).map(|_| FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT);
    let mut next = || ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a port is free");
    [next(), next(), next()]
}
