//! The metrics file of a training: JSON lines, beside the model.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use turret_model::TrainingProgress;

/// Lines of a training from its first step to its last, besides those of validations.
const LINES: usize = 500;

/// A metrics file that is being written.
pub(super) struct Metrics {
    file: File,
    // Since the last line.
    examples: usize,
    took: Duration,
    waited: Duration,
}

impl Metrics {
    /// Opens the file of a training that has done `steps`: of lines that are there, those of later steps go.
    pub(super) fn open(path: &Path, steps: usize) -> io::Result<Self> {
        let is_before = |line: &&str| {
            let line: Option<Value> = serde_json::from_str(line).ok();
            line.and_then(|line| line["step"].as_u64()).is_some_and(|step| step <= steps as u64)
        };
        let kept = match (steps, fs::read_to_string(path)) {
            (0, _) => String::new(),
            (_, Ok(text)) => text.lines().filter(is_before).fold(String::new(), |kept, line| kept + line + "\n"),
            (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => String::new(),
            (_, Err(error)) => return Err(error),
        };
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let mut file = File::create(path)?;
        file.write_all(kept.as_bytes())?;
        Ok(Self { file, examples: 0, took: Duration::ZERO, waited: Duration::ZERO })
    }

    /// Notes a step; writes a line where one is due.
    pub(super) fn add(&mut self, progress: &TrainingProgress) -> io::Result<()> {
        self.examples += progress.examples;
        self.took += progress.took;
        self.waited += progress.waited;
        let every = progress.steps.div_ceil(LINES);
        let is_due = progress.step.is_multiple_of(every) || progress.step == progress.steps;
        if !is_due && progress.validation.is_none() {
            return Ok(());
        }
        let seconds = self.took.as_secs_f64().max(f64::MIN_POSITIVE);
        let mut line = json!({
            "step": progress.step,
            "epoch": progress.epoch,
            "loss": progress.loss,
            "learning_rate": progress.learning_rate,
            "examples_per_s": self.examples as f64 / seconds,
            "waiting_share": self.waited.as_secs_f64() / seconds,
        });
        if let Some(validation) = progress.validation {
            line["recall@10"] = validation.recall_at_10.into();
            line["ndcg@10"] = validation.ndcg_at_10.into();
        }
        (self.examples, self.took, self.waited) = (0, Duration::ZERO, Duration::ZERO);
        // A line at once, so that a reader never sees half of one.
        self.file.write_all(format!("{line}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use turret_model::Validated;

    use super::*;

    fn progress(step: usize, validation: Option<f64>) -> TrainingProgress {
        TrainingProgress {
            step,
            steps: 1_000,
            epoch: 0.5,
            loss: 2.0,
            learning_rate: 0.25,
            examples: 64,
            took: Duration::from_millis(20),
            waited: Duration::from_millis(5),
            validation: validation.map(|ndcg_at_10| Validated { step, recall_at_10: 0.5, ndcg_at_10 }),
        }
    }

    fn lines(path: &Path) -> Vec<Value> {
        fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn lines_are_due_by_step_and_by_validation_and_a_resumed_file_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("models").join("contextual.metrics.jsonl");
        let mut metrics = Metrics::open(&path, 0).unwrap();
        for step in 1..=5 {
            metrics.add(&progress(step, (step == 5).then_some(0.25))).unwrap();
        }
        let steps = |path: &Path| lines(path).iter().map(|line| line["step"].as_u64().unwrap()).collect::<Vec<_>>();
        assert_eq!(steps(&path), [2, 4, 5]);
        let written = lines(&path);
        assert_eq!((&written[0]["examples_per_s"], &written[0]["waiting_share"]), (&json!(3_200.0), &json!(0.25)));
        assert_eq!((&written[2]["ndcg@10"], &written[1]["ndcg@10"]), (&json!(0.25), &Value::Null));
        drop(metrics);

        let mut resumed = Metrics::open(&path, 3).unwrap();
        resumed.add(&progress(4, None)).unwrap();
        assert_eq!(steps(&path), [2, 4]);
        Metrics::open(&path, 0).unwrap();
        assert!(lines(&path).is_empty(), "a new training begins a new file");
    }
}
