//! Commands: what they teach, how they end, and what they leave behind.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{get, send};
use crate::harness::{Cluster, STOP_TIME, request_of};
use crate::process::{Finished, Signal, text, turret};
use crate::world::world;

/// Every command, with what its help must speak of.
const COMMANDS: [(&[&str], &[&str]); 20] = [
    (
        &[],
        &[
            "quickstart",
            "synth",
            "data",
            "train",
            "model",
            "evaluate",
            "skew",
            "publish",
            "serve",
            "refresh",
            "retrieve",
            "load",
            "users",
            "config",
            "--version",
        ],
    ),
    (&["quickstart"], &["Usage"]),
    (
        &["synth"],
        &["<DIR>", "--users", "--ads", "--advertisers", "--days", "--seed", "--json", "20000 where not given"],
    ),
    (&["data", "check"], &["[DIR]", "--config", "--json"]),
    (
        &["train"],
        &["--config", "--only", "--steps", "--resume", "--checkpoint-minutes", "--json", "contextual", "history-only"],
    ),
    (&["model"], &["tensors", "import", "turret model import --config FILE"]),
    (&["model", "tensors"], &["--config", "--kind", "--for", "--json", "contextual", "history-only"]),
    (&["model", "import"], &["--config", "--kind", "--for", "--weights", "--out", "--json", "safetensors"]),
    (&["evaluate"], &["--config", "--out", "--by-tier", "--json"]),
    (
        &["skew", "sweep"],
        &[
            "--config",
            "--by",
            "--versions",
            "--further-steps",
            "--steps",
            "--part",
            "--fresh",
            "--out",
            "--report",
            "--json",
        ],
    ),
    (&["encode"], &["--config", "--out", "--device", "--json", "users a second"]),
    (&["publish"], &["--config", "--rollback", "--generation", "--admin", "--detach", "--json"]),
    (&["serve"], &["--config", "--node"]),
    (&["refresh"], &["--admin", "--dry-run", "--detach", "--json"]),
    (
        &["retrieve"],
        &["--url", "--user", "--surface", "--interest", "--subject", "-k", "--filter", "--deadline-ms", "--json"],
    ),
    (&["load"], &["--url", "--requests", "--rate", "--duration-s", "--in-flight-max", "--events-rate", "--json"]),
    (&["users"], &["export", "import"]),
    (&["users", "export"], &["--config", "--node", "--out", "--json", "must be stopped"]),
    (&["users", "import"], &["--config", "--node", "--from", "--json", "must be stopped"]),
    (&["config", "check"], &["<FILE>"]),
];

#[test]
fn help_speaks_of_every_argument() {
    for (command, arguments) in COMMANDS {
        let finished = turret(&[command, &["--help"]].concat()).expect(0);
        for argument in arguments {
            assert!(finished.output.contains(argument), "`{argument}` is not in {finished:#?}");
        }
        assert!(finished.output.lines().all(|line| line.len() <= 100), "{finished:#?}");
        // Every argument is described: its line has words, or the next one does.
        let lines: Vec<&str> = finished.output.lines().collect();
        for (line, next) in lines.iter().zip(lines.iter().skip(1).chain([&""])) {
            let is_option = line.trim_start().starts_with('-') && !line.trim_start().starts_with("- ");
            let own = line.trim().split_once("  ").is_some_and(|(_, words)| !words.trim().is_empty());
            assert!(!is_option || own || next.starts_with("          "), "undescribed in {command:?}: {line}");
        }
    }
}

#[test]
fn committed_configurations_are_sound() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("turret-cookie"), "0123456789abcdef0123456789abcdef\n").unwrap();
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster-config");
    let mut checked = 0;
    for entry in
        fs::read_dir(committed).unwrap().flatten().filter(|entry| entry.path().extension().is_some_and(|e| e == "toml"))
    {
        // What a file takes from the environment is set for its process alone.
        let finished = std::process::Command::new(env!("CARGO_BIN_EXE_turret"))
            .args(["config", "check", text(&entry.path())])
            .env("TURRET_DATA", outside.path())
            .env("CREDENTIALS_DIRECTORY", outside.path())
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&finished.stdout);
        assert_eq!(finished.status.code(), Some(0), "{}: {finished:?}", entry.path().display());
        assert!(output.contains("sound; nodes a"), "{output}");
        checked += 1;
    }
    assert!(checked >= 4, "only {checked} files");
}

#[test]
fn load_stops_by_itself_and_counts_what_it_sent() {
    let cluster = Cluster::start(&["a"]);
    let dir = tempfile::tempdir().unwrap();
    let requests = dir.path().join("requests.jsonl");
    let bodies: Vec<String> = ["u1", "u2", "u3"].map(|user| request_of(user).to_string()).into();
    fs::write(&requests, bodies.join("\n")).unwrap();
    let rate = ["--rate", "50", "--duration-s", "2", "--json"];
    let load = |url: &str| turret(&[&["load", "--url", url, "--requests", text(&requests)], &rate[..]].concat());
    let started = Instant::now();
    let report: Value = serde_json::from_str(&load(&cluster.nodes[0].http).expect(0).output).unwrap();
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    for (field, expected) in [("sent", 100), ("answered", 100), ("failed", 0), ("dropped", 0), ("degraded", 0)] {
        assert_eq!(report[field], expected, "{field}: {report:#}");
    }
    assert_eq!(report["errors"], json!({}), "{report:#}");
    let latency = |quantile: &str| report["latency_us"][quantile].as_u64().expect("a number of microseconds");
    let ordered = [1, latency("p50"), latency("p90"), latency("p99"), latency("p999"), latency("max")];
    assert!(ordered.is_sorted(), "{report:#}");
    // It leaves by the clock, so that it takes as long as was asked for, whatever the answers take.
    assert!(report["seconds"].as_f64().is_some_and(|seconds| (1.9..10.0).contains(&seconds)), "{report:#}");
    assert!(report.get("events").is_none(), "nobody asked for events");
    let with_events = ["load", "--url", &cluster.nodes[0].http, "--requests", text(&requests), "--events-rate", "500"];
    let every = ["--events-per-request", "10"];
    let report = turret(&[&with_events[..], &every, &rate].concat()).expect(0).output;
    let report: Value = serde_json::from_str(&report).unwrap();
    let (events, asked) = (&report["events"], &report["answered"]);
    assert_eq!((&events["sent"], &events["answered"], asked), (&json!(100), &json!(100), &json!(100)), "{report:#}");
    let user = get(&format!("{}/v1/users/u1", cluster.nodes[0].http)).expect(200).json();
    assert!(user["events"]["kept"].as_u64().unwrap() > 20, "{user:#}");
    cluster.assert_no_panic();

    let gone = load("http://127.0.0.1:9").expect(1);
    gone.says(&["no request was answered"]);
    let report: Value = serde_json::from_str(&gone.output).unwrap();
    assert_eq!((&report["answered"], &report["failed"]), (&json!(0), &json!(100)), "{report:#}");
}

#[test]
fn load_refuses_requests_that_are_not_json() {
    let dir = tempfile::tempdir().unwrap();
    let requests = dir.path().join("requests.jsonl");
    let load = || turret(&["load", "--requests", text(&requests)]).expect(1);
    load().says(&["requests.jsonl", "No such file"]);
    fs::write(&requests, "\n").unwrap();
    load().says(&["requests.jsonl: holds no requests"]);
    fs::write(&requests, "{}\n{\"k\":\n").unwrap();
    load().says(&["requests.jsonl:2: not JSON"]);
}

#[test]
fn retrieve_asks_a_node_and_prints_its_answer_or_its_refusal() {
    let cluster = Cluster::start(&["a"]);
    let url = cluster.nodes[0].http.as_str();
    let retrieve = |arguments: &[&str]| turret(&[&["retrieve", "--url", url], arguments].concat());
    let answer: Value =
        serde_json::from_str(&retrieve(&["--user", "u1", "-k", "3", "--json"]).expect(0).output).unwrap();
    assert_eq!(answer["candidates"].as_array().map(Vec::len), Some(3), "{answer:#}");
    let interest = format!("{}:0.9", world().interests[0]);
    let table = retrieve(&["--user", "u1", "--interest", &interest, "-k", "3"]).expect(0);
    let first = table.output.lines().next().unwrap_or_default();
    assert!(["ad", "score", "advertiser", "shard"].iter().all(|column| first.contains(column)), "{table:#?}");
    assert!(table.output.contains("6/6 shards, 100.0 % of the ads"), "{table:#?}");
    assert!(table.output.contains("context used"), "{table:#?}");
    let plans = retrieve(&["--filter", "min_age <= 25", "--explain-plan"]).expect(0).output;
    let shards = plans.lines().skip_while(|line| !line.starts_with("shard  strategy")).skip(2).count();
    assert_eq!(shards, 6, "{plans}");
    retrieve(&["-k", "0"]).expect(1).says(&["400 (invalid_request): k: 0 is not in 1..=2000"]);
    retrieve(&["--surface", "moon"]).expect(1).says(&["400 (invalid_request): surface: unknown variant `moon`"]);
    let filtered = retrieve(&["--filter", "countries has US and min_age <= 25", "--json"]).expect(0);
    let json = r#"{"and": [{"has": {"countries": "US"}}, {"lte": {"min_age": 25}}]}"#;
    let same = retrieve(&["--filter", json, "--json"]).expect(0);
    let ads = |answer: &str| serde_json::from_str::<serde_json::Value>(answer).unwrap()["candidates"].clone();
    assert_eq!(ads(&filtered.output), ads(&same.output));
    let caret = "filter: column 12: must be a number: `min_age` is one\nmin_age <= '25'\n           ^";
    retrieve(&["--filter", "min_age <= '25'"]).expect(1).says(&[caret]);
    retrieve(&["--filter", "{min_age}"]).expect(2).says(&["--filter: not JSON"]);
    turret(&["retrieve", "--url", "http://127.0.0.1:9"]).expect(1).says(&["cannot reach http://127.0.0.1:9"]);
    cluster.assert_no_panic();
}

#[test]
fn a_node_that_is_asked_to_stop_stops_at_once() {
    for signal in [Signal::Interrupt, Signal::Terminate] {
        let mut cluster = Cluster::start(&["a", "b"]);
        // Callers that keep a connection open and say nothing do not hold it up.
        let address = cluster.nodes[0].http.strip_prefix("http://").expect("an address").to_owned();
        let idle = TcpStream::connect(&address).unwrap();
        get(&format!("{}/livez", cluster.nodes[0].http)).expect(200);
        let process = cluster.process(0);
        process.signal(signal);
        let ended = process.wait(STOP_TIME);
        assert_eq!(ended.code(), Some(0), "{signal:?}: {ended}\n{}", process.log());
        assert!(process.log().contains("node stopped"), "{}", process.log());
        drop(idle);
        // It comes back over the same directory: it has closed what it had open.
        cluster.nodes[0].forget();
        cluster.restart(0);
        cluster.wait_joined();
        cluster.assert_no_panic();
    }
}

#[test]
fn one_seed_gives_identical_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let made = |name: &str, seed: &str| {
        let target = dir.path().join(name);
        let size = ["--users", "200", "--ads", "150", "--advertisers", "9", "--days", "5", "--seed", seed, "--json"];
        let finished = turret(&[&["synth", text(&target)], &size[..]].concat()).expect(0);
        (serde_json::from_str::<Value>(&finished.output).unwrap(), files(&target))
    };
    let (told, first) = made("first", "7");
    assert_eq!((&told["users"], &told["ads"]), (&json!(200), &json!(150)), "{told:#}");
    assert!(first.len() >= 9, "{:?}", first.keys());
    assert_eq!((told, first.clone()), made("second", "7"));
    let (_, other) = made("third", "8");
    assert!(first.keys().eq(other.keys()));
    assert_ne!(first["events.parquet"], other["events.parquet"]);
}

/// Every file below `dir`, by its path there; none where it is not there.
pub(crate) fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let Ok(entries) = fs::read_dir(dir) else { return found };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            found.extend(files(&entry.path()).into_iter().map(|(path, bytes)| (format!("{name}/{path}"), bytes)));
        } else {
            found.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    found
}

#[test]
fn a_refresh_is_counted_watched_and_told() {
    let cluster = Cluster::start(&["a", "b", "c"]);
    let users = world().user_of_each_partition();
    let line = |user: &String| {
        let event =
            json!({ "user_id": user, "item_id": "item3", "event_type": "view", "timestamp_ms": 1_768_300_000_000_i64 });
        format!("{event}\n")
    };
    let body: String = users.iter().map(line).collect();
    let url = format!("{}/v1/events:ingest", cluster.nodes[1].http);
    send(Method::POST, &url, Some(body.into_bytes())).expect(200);
    let refresh = |node: usize, arguments: &[&str]| {
        let admin = cluster.nodes[node].admin.clone();
        turret(&[&["refresh", "--admin", &admin, "--json"], arguments].concat())
    };
    let read = |finished: Finished| -> Value { serde_json::from_str(&finished.expect(0).output).unwrap() };
    assert_eq!(read(refresh(2, &["--dry-run"])), json!({ "users_dirty": users.len() }));
    let done = read(refresh(1, &[]));
    let figures = ["users_dirty", "users_refreshed", "partitions_failed"].map(|field| done[field].as_u64());
    assert_eq!(figures, [Some(users.len() as u64), Some(users.len() as u64), Some(0)], "{done:#}");
    assert_eq!(read(refresh(0, &["--dry-run"])), json!({ "users_dirty": 0 }));
    assert_eq!(read(refresh(0, &["--detach"]))["run"], 2);
    cluster.assert_no_panic();
    turret(&["refresh", "--admin", "http://127.0.0.1:9"]).expect(1).says(&["no node answers at http://127.0.0.1:9"]);
    let refused = turret(&["refresh", "--admin", "127.0.0.1:9"]).expect(2).errors;
    assert!(refused.contains("'--admin <URL>': must be like http://127.0.0.1:7101"), "{refused}");
    let url = format!("{}/admin/refresh?dry=1", cluster.nodes[0].admin);
    let refused = send(Method::POST, &url, None).expect(400).json();
    assert_eq!(refused["field"], "query", "{refused:#}");
}
