//! A process that takes turns: ours, or PyTorch's. Both read commands and answer each with a line of JSON.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use turret_model::{Device, Trial};

use crate::workload::Workload;

/// States on a GPU may differ by so much from those on the CPU, whose values are about 1.
const STATE_TOLERANCE: f32 = 1e-4;

/// Answers commands on `device` as peers/training.py does.
pub(crate) fn work(workload: &Workload, device: &Device) -> Result<()> {
    let trial = || Trial::new(&workload.model, &workload.training, &workload.shape);
    let on_cpu = trial()?;
    let mut trial = trial()?.on(device);
    let model = trial.model()?;
    let mut greeting = json!({});
    if device.to_string() != Device::CPU.to_string() {
        let states = model.encode(trial.batch())?.concat();
        let differ = largest_difference(&states, &on_cpu.model()?.encode(on_cpu.batch())?.concat())?;
        ensure!(differ <= STATE_TOLERANCE, "states differ from those of the CPU by {differ}");
        greeting["states_differ_by"] = json!(differ);
    }
    greeting["first_loss"] = json!(trial.step(trial.batch())?);
    let mut out = std::io::stdout().lock();
    writeln!(out, "{greeting}")?;
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

/// Not a number where one of them is none.
fn largest_difference(values: &[f32], expected: &[f32]) -> Result<f32> {
    ensure!(values.len() == expected.len(), "{} values where {} are expected", values.len(), expected.len());
    let differences = values.iter().zip(expected).map(|(value, expected)| (value - expected).abs());
    Ok(differences.fold(0.0, |largest, one| if largest.is_nan() || one <= largest { largest } else { one }))
}

/// The CPU time of this process, user and system, all threads.
fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').context("the name of the process stands in parentheses")?;
    let ticks: Vec<f64> = fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    // A hundred ticks a second, on every Linux.
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

/// One that was started.
pub(crate) struct Worker {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Its first line: losses of the first step, and more.
    pub(crate) greeting: Value,
}

impl Worker {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
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
    pub(crate) fn turn(&mut self, job: &str, count: usize) -> Result<Turn> {
        writeln!(self.commands, "{job} 1")?;
        self.answer()?;
        writeln!(self.commands, "{job} {count}")?;
        let answer = self.answer()?;
        let each = |key: &str| answer[key].as_f64().map(|seconds| 1e3 * seconds / count as f64);
        let losses = answer["losses"].as_array().context("losses")?.iter().filter_map(Value::as_f64).collect();
        Ok(Turn { wall: each("wall").context("wall")?, cpu: each("cpu").context("cpu")?, losses })
    }

    pub(crate) fn stop(mut self) -> Result<()> {
        drop(self.commands);
        ensure!(self.process.wait()?.success(), "a worker failed");
        Ok(())
    }
}

/// What a turn took.
pub(crate) struct Turn {
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
    pub(crate) losses: Vec<f64>,
}
