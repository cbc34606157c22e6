//! How fast training and encoding are beside PyTorch: `just bench-training`.
//!
//! Three workloads, on one thread and on two. Each implementation is a process that holds the same weights and the same
//! batch (`peers/training.py` reads what this program wrote), and both take turns, so that what else the machine does
//! falls on both. The first loss must be the same. Prints a table, and writes docs/results/training-speed.json.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use turret_model::{
    Attention, EventWeights, Fusion, HistoryGap, ModelKind, ModelSettings, Objective, Predicts, SyntheticContext,
    TrainingSettings, Trial, TrialShape,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Turns of each implementation; the median counts.
const ROUNDS: usize = 5;
/// What is measured, in the order of [`Workload::repeat`].
const JOBS: [&str; 2] = ["training step", "encode"];
/// The losses of the first step may differ by so much.
const LOSS_TOLERANCE: f64 = 2e-4;

/// Events before an event of Globo's log, 50 at most: the middle of each thirty-second of the events.
const GLOBO: [usize; 32] =
    [1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5, 6, 7, 8, 9, 9, 11, 12, 13, 15, 16, 19, 21, 24, 28, 32, 39, 49, 50, 50];
/// Events of a user of MovieLens-1M before the last one, 200 at most: the middle of each thirty-second of the users.
const MOVIELENS: [usize; 32] = [
    20, 22, 24, 27, 30, 34, 37, 41, 45, 49, 55, 61, 66, 73, 80, 89, 99, 107, 118, 129, 143, 157, 173, 196, 200, 200,
    200, 200, 200, 200, 200, 200,
];

/// One workload.
struct Workload {
    name: &'static str,
    about: &'static str,
    shape: TrialShape,
    model: ModelSettings,
    training: TrainingSettings,
    /// Steps and encodings of a turn; the states after every event are nothing that is encoded for serving.
    repeat: [Option<usize>; 2],
}

fn workloads() -> Vec<Workload> {
    let retrieval = |name, about, lengths: Vec<usize>, repeat| Workload {
        name,
        about,
        shape: TrialShape { items: 50_000, lengths, predicts: Predicts::Last, negatives: 1_000 },
        model: model(50, 50_000, 256),
        training: training(Objective::AllAction),
        repeat,
    };
    let mixed = |lengths: &[usize], each: usize| {
        // Long and short ones in turn, as draws of users are.
        (0..lengths.len() * each).map(|number| lengths[number * 13 % lengths.len()]).collect()
    };
    vec![
        retrieval("full length", "256 histories of 50 events, 1,256 candidates", vec![50; 256], [Some(10), Some(30)]),
        retrieval(
            "Globo's lengths",
            "256 histories of 1 to 50 events, 14 on average",
            mixed(&GLOBO, 8),
            [Some(30), Some(100)],
        ),
        Workload {
            name: "MovieLens, dense",
            about: "64 histories of 20 to 200 events, a prediction after each, 3,256 candidates",
            shape: TrialShape {
                items: 10_000,
                lengths: mixed(&MOVIELENS, 2),
                predicts: Predicts::Each,
                negatives: 3_000,
            },
            model: model(200, 16_384, 128),
            training: training(Objective::DenseAllAction),
            repeat: [Some(5), None],
        },
    ]
}

fn model(history_length_max: usize, id_buckets: u32, feed_forward: usize) -> ModelSettings {
    ModelSettings {
        kind: ModelKind::Contextual,
        fusion: Fusion::Concat,
        subject_item: false,
        dimension: 64,
        layers: 2,
        heads: 2,
        feed_forward,
        head_hidden: 256,
        attention: Attention::Causal,
        history_length_max,
        id_buckets,
        advertiser_buckets: 1_000,
        query_buckets: 0,
        content_embedding: false,
    }
}

/// Without dropout, so that both take the same steps.
fn training(objective: Objective) -> TrainingSettings {
    TrainingSettings {
        seed: 1,
        steps: 100_000,
        batch_size: 256,
        negatives: 1_000,
        learning_rate: 0.001,
        warmup_steps: 0,
        weight_decay: 0.01,
        temperature: 0.05,
        log_q_positives: 1.0,
        log_q_negatives: 1.0,
        objective,
        window_days: 1,
        window_events: 1,
        event_weights: EventWeights { view: 1.0, add_to_cart: 1.0, checkout: 1.0, signup: 1.0 },
        half_life_hours: None,
        history_gap: HistoryGap::None,
        encoder_dropout: 0.0,
        context_dropout: 0.0,
        context_drop: 0.0,
        id_drop: 0.0,
        history_drop: 0.0,
        demographics_drop: 0.0,
        synthetic_context: SyntheticContext {
            label_share: 0.0,
            confidence_noise: 0.0,
            interest_drop: 0.0,
            interest_add: 0.0,
            query_share: 0.0,
        },
        validation_every_steps: 0,
        validation_cases_max: 1,
        keep_best: false,
        patience: 0,
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--worker", workload] => work(&workloads()[workload.parse::<usize>()?]),
        ["--python", python, ..] => compare(Path::new(python)),
        // What cargo says to a benchmark without our recipe.
        _ => bail!("run `just bench-training`, which knows a Python with PyTorch"),
    }
}

/// Answers commands as peers/training.py does.
fn work(workload: &Workload) -> Result<()> {
    let mut trial = Trial::new(&workload.model, &workload.training, &workload.shape)?;
    let model = trial.model()?;
    let first = trial.step(trial.batch())?;
    model.encode(trial.batch())?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", json!({ "first_loss": first }))?;
    for line in std::io::stdin().lines() {
        let line = line?;
        let (command, count) = line.split_once(' ').context("a command and a count")?;
        let batches: Vec<_> = (0..count.parse()?).map(|_| trial.batch()).collect();
        let (start, cpu) = (Instant::now(), cpu_seconds()?);
        let mut losses = Vec::new();
        for batch in batches {
            match command {
                "train" => losses.push(trial.step(batch)?),
                _ => drop(model.encode(batch)?),
            }
        }
        let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
        writeln!(out, "{}", json!({ "wall": wall, "cpu": cpu, "losses": losses }))?;
    }
    Ok(())
}

/// The CPU time of this process, user and system, all threads.
fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').context("the name of the process stands in parentheses")?;
    let ticks: Vec<f64> = fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    // A hundred ticks a second, on every Linux.
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

/// A process that takes turns.
struct Worker {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    greeting: Value,
}

impl Worker {
    fn start(command: &mut Command) -> Result<Self> {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start a worker")?;
        let commands = process.stdin.take().context("stdin is a pipe")?;
        let answers = BufReader::new(process.stdout.take().context("stdout is a pipe")?);
        let mut worker = Self { process, commands, answers, greeting: Value::Null };
        worker.greeting = worker.answer()?;
        Ok(worker)
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        ensure!(self.answers.read_line(&mut line)? > 0, "a worker ended early");
        Ok(serde_json::from_str(&line)?)
    }

    /// Milliseconds of wall and CPU time for one repetition, and the losses.
    ///
    /// One repetition is not timed: while the other had its turn, memory may have been given back to the system, and caches
    /// are cold.
    fn turn(&mut self, job: &str, count: usize) -> Result<Turn> {
        writeln!(self.commands, "{job} 1")?;
        self.answer()?;
        writeln!(self.commands, "{job} {count}")?;
        let answer = self.answer()?;
        let each = |key: &str| answer[key].as_f64().map(|seconds| 1e3 * seconds / count as f64);
        let losses = answer["losses"].as_array().context("losses")?.iter().filter_map(Value::as_f64).collect();
        Ok(Turn { wall: each("wall").context("wall")?, cpu: each("cpu").context("cpu")?, losses })
    }

    fn stop(mut self) -> Result<()> {
        drop(self.commands);
        ensure!(self.process.wait()?.success(), "a worker failed");
        Ok(())
    }
}

struct Turn {
    wall: f64,
    cpu: f64,
    losses: Vec<f64>,
}

fn compare(python: &Path) -> Result<()> {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("training-bench");
    std::fs::create_dir_all(&directory)?;
    let mut rows = Vec::new();
    for (number, workload) in workloads().iter().enumerate() {
        let file = directory.join("trial.safetensors");
        Trial::new(&workload.model, &workload.training, &workload.shape)?.save(&file)?;
        let mut ours = Vec::new();
        for threads in [1, 2] {
            let row = race(python, &file, (number, workload), threads)?;
            ours.push(row.iter().map(|job| job["turret"]["wall_ms"].as_f64()).collect::<Vec<_>>());
            rows.extend(row);
        }
        for (name, (one, two)) in JOBS.iter().zip(ours[0].iter().zip(&ours[1])) {
            if let (Some(one), Some(two)) = (one, two) {
                say(&format!("{}: {name}: two threads are {:.2} times one", workload.name, one / two))?;
                let mean = json!({ "speedup": one / two });
                rows.push(json!({
                    "name": format!("{}, {name}, two threads over one", workload.name), "mean": mean, "seeds": [mean],
                }));
            }
        }
        write(&rows)?;
    }
    Ok(())
}

/// Writes what there is so far.
fn write(rows: &[Value]) -> Result<()> {
    let report = json!({
        "command": "just bench-training", "commit": commit()?, "machine": machine()?,
        "seeds": [workloads()[0].training.seed], "rows": rows,
    });
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/results/training-speed.json");
    Ok(std::fs::write(path, format!("{}\n", serde_json::to_string_pretty(&report)?))?)
}

fn commit() -> Result<String> {
    let output = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn machine() -> Result<String> {
    let processors = std::fs::read_to_string("/proc/cpuinfo")?;
    let name = processors.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let cores = std::thread::available_parallelism()?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    Ok(format!("{}, {cores} threads, load average {load} at the end", name.trim_start_matches([' ', '\t', ':'])))
}

/// The rows of both jobs of a workload.
fn race(python: &Path, file: &Path, (number, workload): (usize, &Workload), threads: usize) -> Result<Vec<Value>> {
    let count = threads.to_string();
    let set = |command: &mut Command| {
        command.env("RAYON_NUM_THREADS", &count).env("OMP_NUM_THREADS", &count);
        command.env("MKL_NUM_THREADS", &count);
        // Neither counts the time that its idle threads spin.
        command.env("CANDLE_BARRIER_POOL_SPIN_LIMIT", "0").env("OMP_WAIT_POLICY", "passive");
    };
    let mut turret = Command::new(std::env::current_exe()?);
    set(turret.args(["--worker", &number.to_string()]));
    let settings = json!({
        "layers": workload.model.layers, "heads": workload.model.heads, "temperature": workload.training.temperature,
        "id_buckets": workload.model.id_buckets, "rate": workload.training.learning_rate,
        "decay": workload.training.weight_decay,
        "predicts": if workload.shape.predicts == Predicts::Each { "each" } else { "last" },
    });
    let mut torch = Command::new(python);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/training.py");
    set(torch.arg(script).arg(file).arg(&count).arg(settings.to_string()));
    let mut workers = [Worker::start(&mut turret)?, Worker::start(&mut torch)?];
    let losses: Vec<f64> = workers.iter().filter_map(|worker| worker.greeting["first_loss"].as_f64()).collect();
    ensure!((losses[0] - losses[1]).abs() < LOSS_TOLERANCE, "the first losses differ: {losses:?}");
    let mut rows = Vec::new();
    for (job, name, repeat) in [("train", JOBS[0], workload.repeat[0]), ("encode", JOBS[1], workload.repeat[1])] {
        let Some(repeat) = repeat else { continue };
        let mut turns = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (worker, turns) in workers.iter_mut().zip(&mut turns) {
                turns.push(worker.turn(job, repeat)?);
            }
        }
        rows.push(row(workload, (job, name), threads, &turns, &workers)?);
    }
    workers.into_iter().try_for_each(Worker::stop)?;
    Ok(rows)
}

fn row(
    workload: &Workload,
    (job, name): (&str, &str),
    threads: usize,
    turns: &[Vec<Turn>; 2],
    workers: &[Worker; 2],
) -> Result<Value> {
    let median = |turns: &[Turn], value: fn(&Turn) -> f64| {
        let mut values: Vec<f64> = turns.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let of = |turns: &[Turn]| (median(turns, |turn| turn.wall), median(turns, |turn| turn.cpu));
    let ((wall, cpu), (torch_wall, torch_cpu)) = (of(&turns[0]), of(&turns[1]));
    let last = |turns: &[Turn]| turns.last().and_then(|turn| turn.losses.last().copied());
    say(&format!(
        "{}: {name}, {threads} thread(s): {wall:.1} ms, {cpu:.1} of the CPU; torch {torch_wall:.1}, {torch_cpu:.1}: \
         {:.2}x, {:.2}x of the CPU; losses {} to {:?}, torch {} to {:?}",
        workload.name,
        torch_wall / wall,
        torch_cpu / cpu,
        workers[0].greeting["first_loss"],
        last(&turns[0]),
        workers[1].greeting["first_loss"],
        last(&turns[1]),
    ))?;
    let mean = json!({ "vs_torch": torch_cpu / cpu, "vs_torch_wall": torch_wall / wall });
    Ok(json!({
        "name": format!("{}, {name}, {threads} thread(s)", workload.name),
        "about": workload.about,
        "mean": mean, "seeds": [mean],
        "vs_torch_of_each_round": (0..ROUNDS).map(|at| turns[1][at].cpu / turns[0][at].cpu).collect::<Vec<_>>(),
        "turret": {
            "wall_ms": wall, "cpu_ms": cpu, "first_loss": workers[0].greeting["first_loss"], "last_loss": last(&turns[0]),
        },
        "torch": {
            "wall_ms": torch_wall, "cpu_ms": torch_cpu, "first_loss": workers[1].greeting["first_loss"],
            "last_loss": last(&turns[1]), "version": workers[1].greeting["version"],
            "packed_compiled_sparse": workers[1].greeting["ways"][usize::from(job == "encode")],
        },
    }))
}

fn say(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").map_err(Into::into)
}
