//! What a model is made of, trained on and tested on.

use std::path::PathBuf;

use turret_data::DataSource;
use turret_model::{
    Attention, CaseChoice, EvaluationSettings, EventWeights, Fusion, HistoryGap, ModelKind, ModelSettings, Objective,
    Part, Split, SyntheticContext, TrainingSettings,
};
use turret_retrieval::event::EventType;

use super::reader::{Faults, Section};
use super::{UsersConfig, expand};

/// The ages of a history that recall is measured with, where none are named.
const STATE_AGE_DAYS: [u32; 5] = [0, 1, 2, 4, 7];

/// `[data]`: a directory and the mapping of its columns.
pub(super) fn data(root: &Section<'_>, faults: &Faults) -> Option<DataSource> {
    let value = root.value("data")?;
    let Some(table) = value.as_table() else {
        faults.add("data", "must be a table");
        return None;
    };
    let dir = match table.get("dir").map(|dir| dir.as_str().map(expand)) {
        Some(Some(Ok(dir))) => dir,
        Some(Some(Err(rule))) => {
            faults.add("data.dir", rule);
            PathBuf::new()
        }
        Some(None) => {
            faults.add("data.dir", "must be a string");
            PathBuf::new()
        }
        None => {
            faults.add("data.dir", "is required");
            PathBuf::new()
        }
    };
    if table.keys().all(|key| key == "dir") {
        // Nothing is mapped: the files carry the canonical names.
        return Some(DataSource::canonical(&dir));
    }
    let mut table = table.clone();
    table.iter_mut().for_each(|(_, file)| spell_times(file));
    table.insert("dir".to_owned(), toml::Value::String(dir.to_string_lossy().into_owned()));
    match serde_path_to_error::deserialize(toml::Value::Table(table)) {
        Ok(source) => Some(source),
        Err(error) => {
            let path = error.path().to_string();
            faults.add(&format!("data.{path}"), error.into_inner().message());
            None
        }
    }
}

/// A date of TOML becomes text, which the data source reads.
fn spell_times(file: &mut toml::Value) {
    for (_, value) in file.as_table_mut().into_iter().flat_map(toml::Table::iter_mut) {
        if let toml::Value::Datetime(time) = value {
            *value = toml::Value::String(time.to_string());
        }
    }
}

pub(super) fn model(section: Section<'_>, users: &UsersConfig) -> ModelSettings {
    let attention = [("causal", Attention::Causal), ("bidirectional", Attention::Bidirectional)];
    let fusions = [("concat", Fusion::Concat), ("cross_attention", Fusion::CrossAttention)];
    let settings = ModelSettings {
        kind: ModelKind::Contextual,
        fusion: section.choice("fusion", Fusion::Concat, &fusions),
        subject_item: section.flag("subject_item", false),
        dimension: section.size("dimension", 64, 1..=1_024),
        layers: section.size("layers", 2, 1..=16),
        heads: section.size("heads", 2, 1..=64),
        feed_forward: section.size("feed_forward", 128, 1..=8_192),
        head_hidden: section.size("head_hidden", 128, 1..=8_192),
        attention: section.choice("attention", Attention::Causal, &attention),
        history_length_max: section.size("history_length_max", 100, 1..=1_024),
        id_buckets: section.size("id_buckets", 65_536, 2..=1 << 26) as u32,
        advertiser_buckets: section.size("advertiser_buckets", 4_096, 1..=1 << 24) as u32,
        query_buckets: section.size("query_buckets", 0, 0..=1 << 24) as u32,
        content_embedding: section.flag("content_embedding", false),
    };
    if !settings.dimension.is_multiple_of(settings.heads) {
        section.fault("heads", format_args!("{} does not divide the dimension {}", settings.heads, settings.dimension));
    }
    let events_per_user_max = users.settings.events_per_user_max;
    if settings.history_length_max > events_per_user_max {
        let kept = format_args!("is more than users.events_per_user_max, {events_per_user_max}").to_string();
        section.fault("history_length_max", kept);
    }
    let fits = users.state_precision.check_fits(settings.state_rows_max(), settings.dimension);
    if let Err(error) = fits {
        section.fault("history_length_max", format_args!("a user's state cannot be kept: {error}"));
    }
    section.finish();
    settings
}

/// The settings, and the most events that are trained on in memory.
pub(super) fn training(section: Section<'_>) -> (TrainingSettings, u64) {
    let objectives = [
        ("all_action", Objective::AllAction),
        ("next_action", Objective::NextAction),
        ("dense_all_action", Objective::DenseAllAction),
    ];
    let gaps = [("none", HistoryGap::None), ("day", HistoryGap::Day)];
    let half_life = section.value("half_life_hours").is_some();
    let share = |key, default: f64| section.number(key, default, 0.0..=1.0) as f32;
    let settings = TrainingSettings {
        seed: section.integer("seed", 1, 0..=i64::MAX) as u64,
        steps: section.size("steps", 2_000, 1..=10_000_000),
        batch_size: section.size("batch_size", 256, 1..=65_536),
        negatives: section.size("negatives", 512, 0..=1_000_000),
        learning_rate: section.number("learning_rate", 0.002, 1e-7..=0.99) as f32,
        warmup_steps: section.size("warmup_steps", 50, 0..=10_000_000),
        weight_decay: section.number("weight_decay", 0.01, 0.0..=0.99) as f32,
        temperature: section.number("temperature", 0.07, 1e-3..=9.99) as f32,
        log_q_positives: share("log_q_positives", 1.0),
        log_q_negatives: share("log_q_negatives", 1.0),
        objective: section.choice("objective", Objective::AllAction, &objectives),
        window_days: section.size("window_days", 7, 1..=3_650) as u32,
        window_events: section.size("window_events", 1, 1..=1_024) as u32,
        event_weights: event_weights(section.section("event_weights")),
        half_life_hours: half_life.then(|| section.number("half_life_hours", 24.0, 0.1..=1e6) as f32),
        history_gap: section.choice("history_gap", HistoryGap::None, &gaps),
        encoder_dropout: section.number("encoder_dropout", 0.1, 0.0..=0.99) as f32,
        context_dropout: section.number("context_dropout", 0.3, 0.0..=0.99) as f32,
        context_drop: share("context_drop", 0.3),
        id_drop: share("id_drop", 0.1),
        history_drop: share("history_drop", 0.1),
        demographics_drop: share("demographics_drop", 0.1),
        synthetic_context: synthetic_context(section.section("synthetic_context")),
        validation_every_steps: section.size("validation_every_steps", 0, 0..=10_000_000),
        validation_cases_max: section.size("validation_cases_max", 10_000, 1..=1_000_000),
        keep_best: section.flag("keep_best", true),
        patience: section.size("patience", 0, 0..=10_000_000),
    };
    if settings.warmup_steps > settings.steps {
        section.fault("warmup_steps", format_args!("is more than steps, {}", settings.steps));
    }
    if settings.patience > 0 && settings.validation_every_steps == 0 {
        section.fault("patience", "must be 0 where validation_every_steps is 0");
    }
    let events_in_memory_max = section.size("events_in_memory_max", 20_000_000, 1..=1 << 40) as u64;
    section.finish();
    (settings, events_in_memory_max)
}

fn event_weights(section: Section<'_>) -> EventWeights {
    let weight = |key, default| section.number(key, default, 0.0..=1e6) as f32;
    let weights = EventWeights {
        view: weight("view", 1.0),
        add_to_cart: weight("add_to_cart", 2.0),
        checkout: weight("checkout", 4.0),
        signup: weight("signup", 4.0),
    };
    section.finish();
    weights
}

fn synthetic_context(section: Section<'_>) -> SyntheticContext {
    let share = |key, default: f64| section.number(key, default, 0.0..=1.0) as f32;
    let context = SyntheticContext {
        query_share: share("query_share", 0.0),
        label_share: share("label_share", 1.0),
        confidence_noise: share("confidence_noise", 0.3),
        interest_drop: section.number("interest_drop", 0.2, 0.0..=0.99) as f32,
        interest_add: share("interest_add", 0.2),
    };
    section.finish();
    context
}

/// `[split]`: `kind = "temporal"` with `cut` and `until`, or `kind = "leave_one_out"`.
pub(super) fn split(section: Section<'_>) -> Split {
    let is_temporal = section.choice("kind", false, &[("temporal", true), ("leave_one_out", false)]);
    let split = if is_temporal {
        let validated = section.value("validation_cut").is_some();
        Split::Temporal {
            part: Part::Test,
            validation_cut_ms: validated.then(|| instant(&section, "validation_cut")),
            cut_ms: instant(&section, "cut"),
            until_ms: instant(&section, "until"),
        }
    } else {
        let history_gap_events = section.size("history_gap_events", 0, 0..=1_024);
        Split::LeaveOneOut { part: Part::Test, history_gap_events }
    };
    if let Err(error) = split.check() {
        section.fault(error.field, error.rule);
    }
    section.finish();
    split
}

/// A time such as `2017-10-16T00:00:00Z`, in milliseconds since 1970-01-01 UTC.
fn instant(section: &Section<'_>, key: &'static str) -> i64 {
    let text = match section.value(key) {
        Some(toml::Value::Datetime(time)) => time.to_string(),
        Some(_) | None => section.required_text(key).to_owned(),
    };
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => time.as_millisecond(),
        Err(_) => {
            section.fault(key, format_args!("`{text}` is not a time such as 2017-10-16T00:00:00Z"));
            0
        }
    }
}

pub(super) fn evaluation(section: Section<'_>, split: &Split) -> EvaluationSettings {
    let capped = section.value("cases_max").is_some();
    let choices = [("last", CaseChoice::Last), ("first_context", CaseChoice::FirstContext), ("each", CaseChoice::Each)];
    let is_temporal = matches!(split, Split::Temporal { .. });
    let ages: &[u32] = if is_temporal { &STATE_AGE_DAYS } else { &[] };
    let settings = EvaluationSettings {
        seed: section.integer("seed", 1, 0..=i64::MAX) as u64,
        cases_max: capped.then(|| section.size("cases_max", 10_000, 1..=100_000_000)),
        bootstrap_samples: section.size("bootstrap_samples", 200, 0..=10_000),
        cases: section.choice("cases", CaseChoice::Last, &choices),
        target_events: section.list("target_events", &[], "one of view, add_to_cart, checkout, signup", |value| {
            value.as_str().and_then(EventType::from_name)
        }),
        state_age_days: section.list("state_age_days", ages, "a number of days in 0..=365", |value| {
            value.as_integer().filter(|days| (0..=365).contains(days)).map(|days| days as u32)
        }),
    };
    if settings.cases != CaseChoice::Last && !is_temporal {
        section.fault("cases", "must be last where split.kind is leave_one_out");
    }
    if !settings.state_age_days.is_empty() && !is_temporal {
        section.fault("state_age_days", "needs a temporal split");
    }
    if let Err(error) = settings.check() {
        section.fault(error.field, error.rule);
    }
    section.finish();
    settings
}
