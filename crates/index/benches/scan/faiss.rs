//! faiss in a process of its own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use super::embeddings::World;

/// A flat index that faiss searches. Ends with its standard input.
pub(crate) struct Faiss {
    process: Child,
    ask: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

pub(crate) struct Answer {
    pub(crate) cpu_s: f64,
    /// The rows found for the first query.
    pub(crate) first: Vec<u32>,
}

impl Faiss {
    pub(crate) fn start(python: &str, script: &Path, world: &World) -> Self {
        let files = tempfile::tempdir().expect("a directory");
        let write = |name: &str, vectors: &[f32]| {
            let path = files.path().join(name);
            let bytes: Vec<u8> = vectors.iter().flat_map(|x| x.to_le_bytes()).collect();
            std::fs::write(&path, bytes).expect("the vectors are written");
            path
        };
        let rows = write("rows", &world.flat);
        let queries: Vec<f32> = world.queries.iter().flat_map(|query| query.as_slice().to_vec()).collect();
        let queries = write("queries", &queries);
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut process = Command::new(root.join(python))
            .arg(script)
            .args([rows, queries])
            .arg(world.dimension.to_string())
            .env("OMP_NUM_THREADS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let answers = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut faiss = Self { ask: process.stdin.take(), process, answers };
        // Its greeting: from here on the files are read.
        faiss.line();
        faiss
    }

    pub(crate) fn search(&mut self, k: usize, batch: usize, turns: usize) -> Answer {
        let ask = self.ask.as_mut().expect("it runs");
        writeln!(ask, "{k} {batch} {turns}").expect("faiss listens");
        let answer = self.line();
        let rows = answer["first"].as_array().expect("rows").iter();
        Answer {
            cpu_s: answer["cpu_s"].as_f64().expect("a time"),
            first: rows.map(|row| row.as_u64().expect("a row") as u32).collect(),
        }
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("faiss answers");
        serde_json::from_str(&line).expect("an answer of faiss; is it installed?")
    }
}

impl Drop for Faiss {
    fn drop(&mut self) {
        drop(self.ask.take());
        drop(self.process.wait());
    }
}
