//! A model that was imported from PyTorch answers as PyTorch did: states, query embeddings with and without context, and
//! ad embeddings, by concatenation and by cross-attention.
//!
//! What PyTorch said is committed beside its definition, examples/pytorch/; `just parity` has it said again.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;
use turret_model::{HeadInput, Model};
use turret_retrieval::context::Context;
use turret_retrieval::event::Event;
use turret_retrieval::item::Item;
use turret_retrieval::user::Demographics;

/// The most that a component may differ by; embeddings have length 1, and components of states are of the order of 1.
const TOLERANCE: f32 = 1e-5;

/// What golden.py writes: the questions, and what PyTorch answers for each model.
#[derive(Deserialize)]
struct Cases {
    histories: Vec<Vec<Event>>,
    contexts: Vec<Option<Context>>,
    users: Vec<Demographics>,
    items: Vec<Item>,
    queries: Vec<Query>,
    models: std::collections::BTreeMap<String, Answers>,
}

/// Places in the lists above.
#[derive(Deserialize)]
struct Query {
    history: usize,
    context: usize,
    user: usize,
}

#[derive(Deserialize)]
struct Answers {
    config: String,
    kind: String,
    /// Of each history, of each of its events.
    states: Vec<Vec<Vec<f32>>>,
    queries: Vec<Vec<f32>>,
    items: Vec<Vec<f32>>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where the answers lie: those that were committed, or those that `just parity` has just made.
fn golden() -> PathBuf {
    let committed = || root().join("examples/pytorch/parity/golden");
    std::env::var_os("TURRET_PARITY").map_or_else(committed, |dir| root().join(dir))
}

/// Runs `turret`, which must exit with `code`; returns what it printed on standard output and standard error.
fn turret(arguments: &[&str], code: i32) -> String {
    let done = Command::new(env!("CARGO_BIN_EXE_turret"))
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("the program starts");
    let said = [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert_eq!(done.status.code(), Some(code), "{said}");
    said
}

fn import(config: &str, kind: &str, weights: &Path, out: &Path, code: i32) -> String {
    let config = format!("examples/pytorch/parity/{config}");
    let [weights, out] = [weights, out].map(|path| path.to_str().expect("paths of tests are UTF-8"));
    turret(&["model", "import", "--config", &config, "--kind", kind, "--weights", weights, "--out", out], code)
}

/// The largest difference between any two components.
fn difference<'a>(found: impl IntoIterator<Item = &'a [f32]>, expected: &[Vec<f32>]) -> f32 {
    let found: Vec<&[f32]> = found.into_iter().collect();
    assert_eq!(found.len(), expected.len());
    let rows = found.iter().zip(expected);
    rows.map(|(found, expected)| {
        assert_eq!(found.len(), expected.len());
        found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    })
    .fold(0.0, f32::max)
}

#[test]
fn an_imported_model_answers_as_pytorch_did() {
    let text = std::fs::read(golden().join("cases.json")).unwrap();
    let cases: Cases = serde_json::from_slice(&text).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut largest = 0.0_f32;
    for (name, answers) in &cases.models {
        let out = dir.path().join(name);
        let said = import(&answers.config, &answers.kind, &golden().join(format!("{name}.safetensors")), &out, 0);
        assert!(said.contains("table rows never trained"), "{said}");
        let model = Model::load(&out).unwrap();

        let histories: Vec<&[Event]> = cases.histories.iter().map(Vec::as_slice).collect();
        let states = model.encode(&histories).unwrap();
        // Of a model that keeps one row, the latest event's.
        let expected: Vec<Vec<f32>> = answers
            .states
            .iter()
            .map(|rows| rows[rows.len().saturating_sub(model.state_rows_max())..].concat())
            .collect();
        let of_states = difference(states.iter().map(Vec::as_slice), &expected);

        let inputs: Vec<HeadInput<'_>> = cases
            .queries
            .iter()
            .map(|query| HeadInput {
                state: Some(states[query.history].as_slice()).filter(|state| !state.is_empty()),
                context: cases.contexts[query.context].as_ref(),
                demographics: &cases.users[query.user],
            })
            .collect();
        let queries = model.embed_queries(&inputs).unwrap();
        let of_queries = |with_context: bool| {
            let own = |row: &usize| inputs[*row].context.is_some() == with_context;
            let rows: Vec<usize> = (0..inputs.len()).filter(own).collect();
            assert!(rows.len() >= 4);
            let expected: Vec<Vec<f32>> = rows.iter().map(|row| answers.queries[*row].clone()).collect();
            difference(rows.iter().map(|row| queries[*row].as_slice()), &expected)
        };
        let ads = model.embed_items(&cases.items.iter().collect::<Vec<_>>()).unwrap();
        let differences = [
            ("states", of_states),
            ("queries without context", of_queries(false)),
            ("queries with context", of_queries(true)),
            ("items", difference(ads.iter().map(|ad| ad.as_slice()), &answers.items)),
        ];
        for (what, difference) in differences {
            eprintln!("{name:16} {what:24} largest difference {difference:.2e}");
            largest = largest.max(difference);
        }
        let context_matters = queries[0] != queries[1];
        assert_eq!(context_matters, answers.kind == "contextual", "the first two differ by their context alone");
    }
    eprintln!("largest difference of all {largest:.2e}, tolerance {TOLERANCE:.0e}");
    assert_eq!(cases.models.len(), 3);
    assert!(largest <= TOLERANCE, "{largest}");
}

#[test]
fn what_is_refused_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (out, golden) = (dir.path().join("model"), golden());
    let refuses = |config: &str, kind: &str, weights: &Path, expected: &str| {
        let said = import(config, kind, weights, &out, 1);
        assert!(said.contains(expected), "{said}");
        assert!(said.starts_with("turret: ") && !said.contains("panicked"), "{said}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().filter(|file| !is_weights(file)).count(), 0, "{said}");
    };
    let concat = golden.join("concat.safetensors");
    refuses("concat.toml", "history-only", &concat, "made_for.settings.kind is \"contextual\" in the weights");
    refuses("cross_attention.toml", "contextual", &concat, "made_for.");
    refuses("concat.toml", "contextual", &golden.join("none.safetensors"), "none.safetensors");
    let cut = dir.path().join("cut.safetensors");
    let bytes = std::fs::read(&concat).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() - 4]).unwrap();
    refuses("concat.toml", "contextual", &cut, "is no whole safetensors file");
    // What stands in a directory that is no model is not replaced.
    let said = import("concat.toml", "contextual", &concat, dir.path(), 2);
    assert!(said.contains("--out") && said.contains("is no model") && cut.is_file(), "{said}");
}

fn is_weights(file: &std::io::Result<std::fs::DirEntry>) -> bool {
    file.as_ref().is_ok_and(|file| file.path().extension().is_some_and(|extension| extension == "safetensors"))
}

#[test]
fn tensors_are_told_to_people_and_to_programs() {
    let arguments = ["model", "tensors", "--config", "examples/pytorch/parity/concat.toml"];
    let said = turret(&arguments, 0);
    for expected in
        ["head.context.weight", "[16, 8]", "rows of the table", "countries: BR, DE, US", "seeds of the hashes"]
    {
        assert!(said.contains(expected), "`{expected}` is not in {said}");
    }
    let described: Value = serde_json::from_str(&turret(&[&arguments[..], &["--json"]].concat(), 0)).unwrap();
    assert_eq!(described["made_for"]["settings"]["dimension"], 8);
    assert_eq!(described["features"]["genders"], serde_json::json!(["female", "male"]));
    assert_eq!(described["features"]["hash_seeds"]["ids"], serde_json::json!([0x1D01, 0x1D02]));
}
