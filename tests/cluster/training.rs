//! Trainings that are broken off, and go on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::commands::files;
use crate::process::{Finished, Process, Signal, text, turret, wait_until};
use crate::world::{config_of, world};

/// A configuration of the world with models of its own.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap() };
        let (shared, own) = (text(&world().dir), text(bench.dir.path()));
        let mut settings = config_of(&world().dir);
        for (key, below) in [("data_dir", ""), ("models", "/models")] {
            let line = format!("{key} = \"{shared}{below}\"\n");
            assert!(settings.contains(&line), "{settings}");
            settings = settings.replace(&line, &format!("{key} = \"{own}{below}\"\n"));
        }
        fs::write(bench.config(), settings).unwrap();
        bench
    }

    /// Logs of more than this many events are split.
    fn limit_memory(&self, events: u32) {
        let settings = fs::read_to_string(self.config()).unwrap();
        let limited = settings.replace("[training]\n", &format!("[training]\nevents_in_memory_max = {events}\n"));
        assert_ne!(limited, settings);
        fs::write(self.config(), limited).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("world.toml")
    }

    fn models(&self) -> PathBuf {
        self.dir.path().join("models")
    }

    fn arguments(&self, rest: &[&str]) -> Vec<String> {
        let config = self.config();
        let all = [&["train", "--config", text(&config), "--only", "contextual"], rest].concat();
        all.into_iter().map(str::to_owned).collect()
    }

    fn train(&self, rest: &[&str]) -> Finished {
        let arguments = self.arguments(rest);
        turret(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Begins to train, and presses Ctrl-C when the first metrics are there.
    fn interrupt(&self, rest: &[&str]) -> String {
        let arguments = self.arguments(rest);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        // A log of its own, since that of a name goes on.
        let name = format!("train-{}", fs::read_dir(self.dir.path()).unwrap().count());
        let mut process = Process::start(self.dir.path(), &name, &arguments);
        wait_until("the training is at work", Duration::from_secs(60), || {
            assert_eq!(process.ended(), None, "{}", process.log());
            (!self.metrics().is_empty()).then_some(())
        });
        process.signal(Signal::Interrupt);
        assert_eq!(process.wait(Duration::from_secs(30)).code(), Some(130), "{}", process.log());
        assert_eq!(process.output(), "");
        process.log()
    }

    /// The whole lines of the metrics file.
    fn metrics(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.models().join("contextual.metrics.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn model(&self) -> BTreeMap<String, Vec<u8>> {
        files(&self.models().join("contextual"))
    }

    fn beside_the_model(&self) -> Vec<String> {
        let found = fs::read_dir(self.models()).unwrap().flatten();
        let mut names: Vec<String> = found.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

#[test]
fn an_interrupted_training_leaves_the_model_that_was_there_and_says_how_to_go_on() {
    let bench = Bench::new();
    bench.train(&["--steps", "10"]).expect(0);
    let before = bench.model();
    assert_eq!(before.len(), 3, "{:?}", before.keys());
    assert_eq!(bench.beside_the_model(), ["contextual", "contextual.metrics.jsonl", "contextual.record.json"]);
    fs::remove_file(bench.models().join("contextual.metrics.jsonl")).unwrap();

    let log = bench.interrupt(&["--steps", "1000000"]);
    assert!(log.contains("contextual stopped after ") && log.contains("contextual.checkpoint"), "{log}");
    assert!(
        log.lines().any(|line| line.starts_with("to go on: ") && line.ends_with("--steps 1000000 --resume")),
        "{log}"
    );
    assert_eq!(bench.model(), before);
    // It goes on only as it began.
    let other = bench.train(&["--steps", "999999", "--resume"]).expect(1);
    other.says(&["contextual.checkpoint: training.steps is 1000000 in the checkpoint and 999999 here"]);
    assert_eq!(bench.model(), before);
}

#[test]
fn a_training_that_was_interrupted_twice_ends_with_the_very_model_of_one_that_was_not() {
    let (whole, broken) = (Bench::new(), Bench::new());
    let steps = ["--steps", "400"];
    whole.train(&steps).expect(0);
    broken.interrupt(&steps);
    let first = broken.metrics();
    fs::remove_file(broken.models().join("contextual.metrics.jsonl")).unwrap();
    broken.interrupt(&["--steps", "400", "--resume"]);
    let second = broken.metrics();
    let step = |line: &Value| line["step"].as_u64().unwrap();
    assert!(step(&second[0]) > step(first.last().unwrap()), "it went on: {first:?}, then {second:?}");
    let ended = broken.train(&["--steps", "400", "--resume", "--json"]).expect(0);
    assert_eq!(broken.model(), whole.model());
    assert_eq!(broken.beside_the_model(), ["contextual", "contextual.metrics.jsonl", "contextual.record.json"]);
    let record: Value = serde_json::from_str(&ended.output).unwrap();
    let kept: Value =
        serde_json::from_slice(&fs::read(broken.models().join("contextual.record.json")).unwrap()).unwrap();
    assert_eq!((&record[0], &record[0]["steps"]), (&kept, &400.into()));
    let last = broken.metrics().pop().unwrap();
    let expected = whole.metrics().pop().unwrap();
    assert_eq!((&last["step"], &last["loss"], &last["epoch"]), (&400.into(), &expected["loss"], &expected["epoch"]));

    // What is complete stays.
    let again = broken.train(&["--steps", "400", "--resume"]).expect(0);
    assert!(again.errors.contains("contextual is complete and stays"), "{again:#?}");
    assert_eq!(broken.metrics().pop(), Some(last));
}

#[test]
fn a_log_that_does_not_fit_into_memory_is_trained_on_in_parts_broken_off_or_not() {
    let (whole, broken) = (Bench::new(), Bench::new());
    let no_parts_are_left = |bench: &Bench| assert!(!bench.dir.path().join("parts").exists());
    let steps = ["--steps", "400"];
    whole.limit_memory(1_000);
    let told = whole.train(&steps).expect(0);
    assert!(told.errors.contains("more than training.events_in_memory_max: split into "), "{told:#?}");
    assert!(told.errors.contains("peak memory "), "{told:#?}");
    no_parts_are_left(&whole);
    broken.limit_memory(1_000);
    broken.interrupt(&steps);
    no_parts_are_left(&broken);
    broken.train(&["--steps", "400", "--resume"]).expect(0);
    assert_eq!(broken.model(), whole.model());

    let in_memory = Bench::new();
    assert!(!in_memory.train(&steps).expect(0).errors.contains("split into"));
    assert_ne!(in_memory.model(), whole.model(), "parts are drawn from one after the other");
}

/// A directory that cannot be written to is told of before anything is computed.
#[test]
fn a_place_where_nothing_can_be_kept_is_one_clear_error() {
    let bench = Bench::new();
    fs::write(bench.models(), "a file where the directory of models should be").unwrap();
    let finished = bench.train(&["--steps", "10"]).expect(1);
    finished.says(&["contextual"]);
    assert!(Path::new(&bench.models()).is_file());
}
