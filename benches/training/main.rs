//! How fast training and encoding are beside PyTorch: `just bench-training`, and `just bench-gpu` where a GPU is.
//!
//! Three workloads, on one thread and on two, or on a GPU. Each implementation is a process that holds the same weights and
//! the same batch (`peers/training.py` reads what this program wrote), and they take turns, so that what else the machine does
//! falls on all of them. The first loss must be the same. Prints a table, and writes docs/results/training-speed.json, or
//! gpu.json.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use turret::provenance::Provenance;
use turret_model::{Predicts, Trial};

use self::worker::{Turn, Worker, work};
use self::workload::{Workload, workloads};

mod worker;
mod workload;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Turns of each implementation; the median counts.
const ROUNDS: usize = 5;
/// What is measured, in the order of [`Workload::repeat`].
const JOBS: [(&str, &str); 2] = [("train", "training step"), ("encode", "encode")];
/// The losses of the first step may differ by so much.
const LOSS_TOLERANCE: f64 = 2e-4;
/// Where the workers find the weights and the batch.
const TRIAL: &str = "target/tmp/trial.safetensors";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--worker", workload, device] => work(&workloads()[workload.parse::<usize>()?], &device.parse()?),
        // cargo adds an argument of its own at the end.
        ["--python", python, "--device", device, ..] => on_gpu(python, device),
        ["--python", python, ..] => on_cpu(python),
        // What cargo says to a benchmark without our recipe.
        _ => bail!("run `just bench-training`, which knows a Python with PyTorch"),
    }
}

/// One thread and two, beside PyTorch.
fn on_cpu(python: &str) -> Result<()> {
    let mut rows: Vec<Value> = Vec::new();
    for (number, workload) in workloads().iter().enumerate() {
        write_trial(workload)?;
        let mut ours = Vec::new();
        for threads in [1, 2] {
            let mut racers = vec![turret("turret", number, "cpu")?, torch(python, workload, "cpu")?];
            racers.iter_mut().for_each(|racer| limit(&mut racer.command, threads));
            let raced = race(workload, &format!("{threads} thread(s)"), |turn| turn.cpu, racers)?;
            ours.push(raced.iter().filter_map(|row| row["turret"]["wall_ms"].as_f64()).collect::<Vec<_>>());
            rows.extend(raced);
        }
        for ((_, name), (one, two)) in JOBS.iter().zip(ours[0].iter().zip(&ours[1])) {
            say(&format!("{}: {name}: two threads are {:.2} times one", workload.name, one / two))?;
            let mean = json!({ "speedup": one / two });
            rows.push(json!({
                "name": format!("{}, {name}, two threads over one", workload.name), "mean": mean, "seeds": [mean],
            }));
        }
        write("just bench-training", "docs/results/training-speed.json", &rows, "")?;
    }
    Ok(())
}

/// One GPU, beside PyTorch on it and ourselves on all cores.
fn on_gpu(python: &str, device: &str) -> Result<()> {
    let mut rows = Vec::new();
    for (number, workload) in workloads().iter().enumerate() {
        write_trial(workload)?;
        let racers = vec![
            turret("turret", number, device)?,
            torch(python, workload, device)?,
            turret("turret_on_cpu", number, "cpu")?,
        ];
        rows.extend(race(workload, device, |turn| turn.wall, racers)?);
        write("just bench-gpu", "docs/results/gpu.json", &rows, &format!(", {}", gpu_name()?))?;
    }
    Ok(())
}

fn gpu_name() -> Result<String> {
    let output = Command::new("nvidia-smi").args(["--query-gpu=name", "--format=csv,noheader"]).output()?;
    Ok(String::from_utf8(output.stdout)?.lines().next().unwrap_or("no GPU").trim().to_owned())
}

fn write_trial(workload: &Workload) -> Result<()> {
    std::fs::create_dir_all(Path::new(TRIAL).parent().context("it is in a directory")?)?;
    Ok(Trial::new(&workload.model, &workload.training, &workload.shape)?.save(Path::new(TRIAL))?)
}

fn turret(name: &'static str, workload: usize, device: &str) -> Result<Racer> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--worker", &workload.to_string(), device]);
    limit(&mut command, cores()?);
    Ok(Racer { name, command })
}

fn torch(python: &str, workload: &Workload, device: &str) -> Result<Racer> {
    let settings = json!({
        "layers": workload.model.layers, "heads": workload.model.heads, "temperature": workload.training.temperature,
        "id_buckets": workload.model.id_buckets, "rate": workload.training.learning_rate,
        "decay": workload.training.weight_decay,
        "predicts": if workload.shape.predicts == Predicts::Each { "each" } else { "last" },
    });
    let mut command = Command::new(python);
    command.args(["benches/peers/training.py", TRIAL, &settings.to_string(), device]);
    limit(&mut command, cores()?);
    Ok(Racer { name: "torch", command })
}

fn cores() -> Result<usize> {
    Ok(std::thread::available_parallelism()?.get())
}

fn limit(command: &mut Command, threads: usize) {
    let count = threads.to_string();
    command.env("RAYON_NUM_THREADS", &count).env("OMP_NUM_THREADS", &count).env("MKL_NUM_THREADS", &count);
    // Neither counts the time that its idle threads spin; and what the program itself sets, see src/threads.rs.
    command.env("CANDLE_BARRIER_POOL_SPIN_LIMIT", "0").env("OMP_WAIT_POLICY", "passive").env("CANDLE_NUM_THREADS", "1");
}

/// Writes what there is so far.
fn write(command: &str, path: &str, rows: &[Value], machine: &str) -> Result<()> {
    let Provenance { command, commit, machine: host } = Provenance::of(command);
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    let report = json!({
        "command": command, "commit": commit, "machine": format!("{host}{machine}, load average {load} at the end"),
        "seeds": [workloads()[0].training.seed], "rows": rows,
    });
    Ok(std::fs::write(path, format!("{}\n", serde_json::to_string_pretty(&report)?))?)
}

/// The time that counts: of the CPU, which other work on the machine disturbs least, or of the wall where a GPU works.
type Clock = fn(&Turn) -> f64;

/// One that races.
struct Racer {
    name: &'static str,
    command: Command,
}

/// Has the racers take turns at both jobs; a row for each job. Ratios are of the first one.
fn race(workload: &Workload, place: &str, clock: Clock, racers: Vec<Racer>) -> Result<Vec<Value>> {
    let names: Vec<&str> = racers.iter().map(|racer| racer.name).collect();
    let started = racers.into_iter().map(|mut racer| Worker::start(&mut racer.command));
    let mut workers = started.collect::<Result<Vec<Worker>>>()?;
    let losses: Vec<f64> = workers.iter().filter_map(|worker| worker.greeting["first_loss"].as_f64()).collect();
    let differ = losses.iter().any(|loss| (loss - losses[0]).abs() >= LOSS_TOLERANCE);
    ensure!(losses.len() == workers.len() && !differ, "the first losses differ: {losses:?}");
    let mut rows = Vec::new();
    for (at, repeat) in workload.repeat.into_iter().enumerate() {
        let Some(repeat) = repeat else { continue };
        let mut turns: Vec<Vec<Turn>> = workers.iter().map(|_| Vec::new()).collect();
        for _ in 0..ROUNDS {
            for (worker, turns) in workers.iter_mut().zip(&mut turns) {
                turns.push(worker.turn(JOBS[at].0, repeat)?);
            }
        }
        rows.push(row(workload, (place, clock), at, &names, &turns, &workers)?);
    }
    workers.into_iter().try_for_each(Worker::stop)?;
    Ok(rows)
}

fn row(
    workload: &Workload,
    (place, clock): (&str, Clock),
    job: usize,
    names: &[&str],
    turns: &[Vec<Turn>],
    workers: &[Worker],
) -> Result<Value> {
    let median = |turns: &[Turn], value: fn(&Turn) -> f64| {
        let mut values: Vec<f64> = turns.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let name = format!("{}, {}, {place}", workload.name, JOBS[job].1);
    let mut row = json!({ "name": &name, "about": workload.about });
    let mut mean = json!({});
    let mut said = format!("{name}:");
    for ((racer, turns_of), worker) in names.iter().zip(turns).zip(workers) {
        let (wall, cpu) = (median(turns_of, |turn| turn.wall), median(turns_of, |turn| turn.cpu));
        said += &format!(" {racer} {wall:.1} ms, {cpu:.1} of the CPU");
        row[racer] = json!({
            "wall_ms": wall, "cpu_ms": cpu, "first_loss": worker.greeting["first_loss"],
            "last_loss": turns_of.last().and_then(|turn| turn.losses.last()),
        });
        if racer == &names[0] {
            row["states_differ_by"] = worker.greeting["states_differ_by"].clone();
            continue;
        }
        let ratio = |value: fn(&Turn) -> f64| median(turns_of, value) / median(&turns[0], value);
        let ratios = (ratio(|turn| turn.wall), ratio(|turn| turn.cpu));
        said += &format!(" ({:.2}x, {:.2}x of the CPU);", ratios.0, ratios.1);
        mean[format!("vs_{racer}_wall")] = json!(ratios.0);
        mean[format!("vs_{racer}")] = json!(ratio(clock));
        let rounds = turns_of.iter().zip(&turns[0]);
        row[format!("vs_{racer}_of_each_round")] = rounds.map(|(theirs, ours)| clock(theirs) / clock(ours)).collect();
        row[racer]["version"] = worker.greeting["version"].clone();
        row[racer]["packed_compiled_sparse"] = worker.greeting["ways"][job].clone();
    }
    row["mean"] = mean.clone();
    row["seeds"] = json!([mean]);
    say(&said)?;
    Ok(row)
}

fn say(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").map_err(Into::into)
}
