//! The simulated funnel on a small marketplace: its accounts add up, it repeats itself, and it refuses what it cannot use.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;

use turret::config::Config;
use turret::funnel::{FunnelInputs, FunnelReport, FunnelSettings, Generator, funnel};
use turret_data::marketplace::{MarketplaceSettings, Truth, generate};
use turret_data::{DataSource, LoggedRequest, read, read_requests};
use turret_model::{Model, ModelKind, ModelSettings, Split, TrainingSettings, train};
use turret_retrieval::dataset::Dataset;

const DAY_MS: i64 = 86_400_000;

/// A marketplace with two models of its first days.
struct World {
    data: Dataset,
    log: Vec<LoggedRequest>,
    truth: Truth,
    contextual: Model,
    history_only: Model,
}

impl World {
    fn new(users: u32) -> Self {
        let settings = MarketplaceSettings { users, ads: 400, advertisers: 30, days: 12, seed: 3, start_ms: 0 };
        let dir = tempfile::tempdir().expect("a directory");
        generate(&settings, dir.path(), &mut |_| ControlFlow::Continue(())).expect("a marketplace");
        let data = read(&DataSource::canonical(dir.path()), &mut |_| ControlFlow::Continue(())).expect("it reads");
        let log = read_requests(&dir.path().join("requests.parquet"), &mut |_| ControlFlow::Continue(()));
        let truth = Truth::read(dir.path(), &mut |_| ControlFlow::Continue(())).expect("its truth");
        let (contextual, history_only) = (model(&data, ModelKind::Contextual), model(&data, ModelKind::HistoryOnly));
        Self { data, log: log.expect("its log"), truth, contextual, history_only }
    }

    fn inputs(&self) -> FunnelInputs<'_> {
        FunnelInputs {
            data: &self.data,
            log: &self.log,
            truth: &self.truth,
            contextual: &self.contextual,
            history_only: &self.history_only,
            cut_ms: 11 * DAY_MS,
            until_ms: 12 * DAY_MS,
        }
    }
}

/// As small as will do, trained on the first eleven days.
fn model(data: &Dataset, kind: ModelKind) -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster-config/single.toml");
    let config = Config::load(&path).expect("a valid configuration");
    let settings = ModelSettings {
        kind,
        dimension: 16,
        heads: 1,
        feed_forward: 16,
        head_hidden: 16,
        history_length_max: 10,
        id_buckets: 1_024,
        ..config.model.clone()
    };
    let training = TrainingSettings { steps: 150, batch_size: 64, negatives: 64, ..config.training.clone() };
    let split = Split::temporal(11 * DAY_MS, 12 * DAY_MS);
    train(data, &split, &settings, &training, &mut |_| ControlFlow::Continue(())).expect("a model").0
}

fn run(inputs: &FunnelInputs<'_>) -> anyhow::Result<FunnelReport> {
    let settings = FunnelSettings { seeds: vec![1, 2], candidates: 30 };
    funnel(inputs, &settings, &mut |_| ControlFlow::Continue(()))
}

#[test]
fn the_accounts_add_up_and_a_second_run_says_the_same() {
    let world = World::new(3_000);
    let report = run(&world.inputs()).expect("a simulation");
    let metric = |generator, group: &str, name: &str| {
        let row = report.row(generator, group).expect("every generator has a row in every group");
        assert_eq!(row.seeds.len(), 2);
        row.mean[name]
    };
    assert_eq!(report.groups().len(), 7);
    for group in report.groups() {
        let shares: f64 = Generator::ALL.iter().map(|generator| metric(*generator, group, "impression_share")).sum();
        assert!((shares - 1.0).abs() < 1e-9, "{group}: {shares}");
        for generator in Generator::ALL {
            for name in ["survival_rate", "delivery_share", "median_relevance_retrieved", "alone_fill_rate"] {
                let value = metric(generator, group, name);
                assert!((0.0..=1.0).contains(&value), "{group}, {generator:?}: {name} is {value}");
            }
        }
    }
    let survival = |generator, group| metric(generator, group, "survival_rate");
    for generator in Generator::ALL {
        assert!(survival(generator, "half the floor") >= survival(generator, ""));
        assert!(survival(generator, "1.5 times the floor") <= survival(generator, ""));
    }
    assert!(survival(Generator::ContentNeighbours, "") > survival(Generator::Random, ""));
    let ranker = &report.ranker;
    assert!(ranker.auc > 0.6 && ranker.log_loss < ranker.log_loss_of_constant, "{ranker:?}");

    let again = run(&world.inputs()).expect("a simulation");
    let told = |report: &FunnelReport| serde_json::to_string(report).expect("numbers and names");
    assert_eq!(told(&report), told(&again));
}

#[test]
fn what_cannot_be_simulated_is_refused() {
    let world = World::new(1_200);
    let check = |inputs: FunnelInputs<'_>, expected: &str| {
        let error = run(&inputs).expect_err("a refusal").to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(FunnelInputs { until_ms: 11 * DAY_MS, ..world.inputs() }, "the log has no request on the simulated day");
    check(FunnelInputs { cut_ms: DAY_MS, ..world.inputs() }, "too few to train a ranker on");
    let unclicked: Vec<LoggedRequest> =
        world.log.iter().map(|request| LoggedRequest { clicked: vec![], ..request.clone() }).collect();
    check(FunnelInputs { log: &unclicked, ..world.inputs() }, "with 0 clicks before the simulated day");
    let other = World::new(40);
    check(FunnelInputs { truth: &other.truth, ..world.inputs() }, "the truth is of another marketplace");
    check(FunnelInputs { data: &other.data, ..world.inputs() }, "unknown user");
    let stopped =
        funnel(&world.inputs(), &FunnelSettings::default(), &mut |_| ControlFlow::Break(())).expect_err("broken off");
    assert_eq!(stopped.to_string(), "broken off");
}

#[test]
fn the_command_says_what_it_needs() {
    let dir = tempfile::tempdir().expect("a directory");
    let check = |split: &str, status: i32, expected: &str| {
        let path = dir.path().join("config.toml");
        let text = format!("[data]\ndir = \"{0}\"\n[split]\n{split}\n", dir.path().display());
        std::fs::write(&path, text).expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_turret"));
        let done = command.args(["evaluate", "--funnel", "--config"]).arg(&path).output().expect("it runs");
        let told = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.code() == Some(status) && told.contains(expected), "{told}");
    };
    check("kind = \"leave_one_out\"", 2, "--funnel needs split.kind = \"temporal\"");
    let temporal = "kind = \"temporal\"\ncut = 2026-01-25T00:00:00Z\nuntil = 2026-01-26T00:00:00Z";
    check(temporal, 1, "--funnel needs a synthetic marketplace, as `turret synth` makes it");
}
