//! A library in a process of its own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use super::curve::{Cost, Point};
use super::{TRUTH_K, World};

/// What all libraries read.
pub(crate) struct Files {
    directory: tempfile::TempDir,
    dimension: usize,
}

impl Files {
    pub(crate) fn write(under: &Path, world: &World, truth: &[Vec<u32>]) -> Self {
        std::fs::create_dir_all(under).expect("the directory can be made");
        let directory = tempfile::tempdir_in(under).expect("a directory");
        let write = |name: &str, words: &mut dyn Iterator<Item = [u8; 4]>| {
            let file = std::fs::File::create(directory.path().join(name)).expect("the file can be made");
            let mut file = std::io::BufWriter::new(file);
            words.for_each(|word| file.write_all(&word).expect("there is room"));
            file.flush().expect("there is room");
        };
        write("rows", &mut world.flat.iter().map(|x| x.to_le_bytes()));
        write("queries", &mut world.queries.iter().flat_map(|query| query.as_slice()).map(|x| x.to_le_bytes()));
        write("truth", &mut truth.iter().flatten().map(|row| row.to_le_bytes()));
        Self { directory, dimension: world.dimension }
    }
}

/// A library that has built its index. Ends with its standard input.
pub(crate) struct Peer {
    process: Child,
    ask: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    pub(crate) built: Built,
}

/// What an index cost.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub(crate) cpu_s: f64,
    pub(crate) wall_s: f64,
    pub(crate) bytes: f64,
    /// A call that finds nothing, in microseconds of CPU.
    pub(crate) call_us: f64,
    pub(crate) version: String,
}

impl Peer {
    pub(crate) fn start(python: &str, library: &str, build: usize, files: &Files) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let path = |name: &str| files.directory.path().join(name);
        let mut process = Command::new(root.join(python))
            .arg(root.join("benches/peers/index.py"))
            .arg(library)
            .args([path("rows"), path("queries"), path("truth")])
            .args([files.dimension, TRUTH_K, build].map(|number| number.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let mut answers = BufReader::new(process.stdout.take().expect("it is piped"));
        let greeting = read(&mut answers);
        let number = |key: &str| greeting[key].as_f64().expect("a number");
        let built = Built {
            cpu_s: number("build_cpu_s"),
            wall_s: number("build_wall_s"),
            bytes: number("bytes"),
            call_us: number("call_us"),
            version: greeting["version"].as_str().unwrap_or_default().to_owned(),
        };
        Self { ask: process.stdin.take(), process, answers, built }
    }

    /// Searches for all queries so many times.
    pub(crate) fn run(&mut self, k: usize, parameter: usize, turns: usize) -> Point {
        let answer = self.answer(k, parameter, turns, 1);
        Point { parameter, recall: answer["recall"].as_f64().expect("a share"), cost: cost(&answer) }
    }

    /// The same by two at once.
    pub(crate) fn run_twice(&mut self, k: usize, parameter: usize, turns: usize) -> Cost {
        cost(&self.answer(k, parameter, turns, 2))
    }

    fn answer(&mut self, k: usize, parameter: usize, turns: usize, processes: usize) -> Value {
        writeln!(self.ask.as_mut().expect("it runs"), "{k} {parameter} {turns} {processes}").expect("it listens");
        read(&mut self.answers)
    }
}

fn cost(answer: &Value) -> Cost {
    let number = |key: &str| answer[key].as_f64().expect("a number");
    Cost { cpu_us: number("cpu_us"), wall_us: number("wall_us") }
}

fn read(answers: &mut BufReader<ChildStdout>) -> Value {
    let mut line = String::new();
    answers.read_line(&mut line).expect("it answers");
    serde_json::from_str(&line).expect("an answer; are hnswlib, faiss and usearch installed?")
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.ask.take());
        drop(self.process.wait());
    }
}
