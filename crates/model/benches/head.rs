//! What joining history and context costs a request, by fusion, length of the history and precision of the state.
//!
//! `RAYON_NUM_THREADS=1 cargo bench -p turret-model --bench head -- docs/results/fusion-cost.json`
//!
//! A request here is what an inference worker does for one: it reads the kept state and embeds the query. The model is a
//! default one, trained for a moment on a made-up log, so that states and scores are neither zero nor noise.

use std::collections::{BTreeMap, HashSet};
use std::hint::black_box;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use turret_model::{
    Attention, EventWeights, Fusion, HeadInput, HistoryGap, Model, ModelKind, ModelSettings, Objective, Split,
    SyntheticContext, TrainingSettings, train,
};
use turret_retrieval::context::{Context, Subject};
use turret_retrieval::dataset::{Clock, Dataset, Row};
use turret_retrieval::event::{Event, EventType};
use turret_retrieval::ids::{AdvertiserId, InterestId, ItemId, UserId};
use turret_retrieval::item::{Interest, Item};
use turret_retrieval::state::{Precision, SequenceState};
use turret_retrieval::topk::TopK;
use turret_retrieval::user::{Demographics, User};
use turret_retrieval::vector::{UnitVector, dot};

const SEEDS: [u64; 3] = [1, 2, 3];
const LENGTHS: [usize; 3] = [50, 100, 200];
const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::F16, Precision::Int8];
const ITEMS: u64 = 2_000;
const CATEGORIES: u64 = 50;
const USERS: u64 = 128;
const EVENTS: i64 = 210;
/// Requests timed one by one, and batches timed as one.
const REQUESTS: usize = 3_000;
const BATCHES: [usize; 2] = [16, 64];
/// Ads whose order is compared with that of the exact state.
const TOP: usize = 100;

/// By name, then by metric, one figure a seed.
type Rows = BTreeMap<String, Vec<BTreeMap<&'static str, f64>>>;

fn main() -> ExitCode {
    // As in the program, see ARCHITECTURE.md; `cargo bench` adds `--bench` to the arguments.
    if std::env::var("RAYON_NUM_THREADS").as_deref() != Ok("1") {
        return fail("set RAYON_NUM_THREADS=1: a request is embedded by one thread");
    }
    let Some(path) = std::env::args().skip(1).find(|argument| !argument.starts_with("--")) else {
        return fail("name the file to write the figures to");
    };
    let mut rows = Rows::new();
    for seed in SEEDS {
        for fusion in [Fusion::Concat, Fusion::CrossAttention] {
            measure(seed, fusion, &mut rows);
        }
    }
    let report = report(&path, &rows);
    let text = serde_json::to_string_pretty(&report).expect("figures are JSON") + "\n";
    // cargo starts benchmarks in the package's directory; paths are those of the repository.
    match std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(&path), &text) {
        Ok(()) => {
            // Whoever closed the output has the file.
            drop(std::io::stdout().write_all(text.as_bytes()));
            ExitCode::SUCCESS
        }
        Err(error) => fail(&format!("{path}: {error}")),
    }
}

fn fail(why: &str) -> ExitCode {
    drop(writeln!(std::io::stderr(), "error: {why}"));
    ExitCode::FAILURE
}

/// Adds the figures of one model.
fn measure(seed: u64, fusion: Fusion, rows: &mut Rows) {
    let data = log(seed);
    let split = Split::temporal(EVENTS * 3_600_000, EVENTS * 3_600_000 + 1);
    let mut go_on = |_| ControlFlow::Continue(());
    let trained = train(&data, &split, &model_settings(fusion), &training_settings(seed), &mut go_on);
    let model = trained.expect("the log suits the settings").0;
    let ads = model.embed_items(&data.items.iter().collect::<Vec<_>>()).expect("items have a direction");
    // Without cross-attention the length of the history leaves no trace in the state.
    let lengths = if fusion == Fusion::Concat { &LENGTHS[2..] } else { &LENGTHS[..] };
    for length in lengths {
        let histories: Vec<Vec<Event>> = (0..USERS as u32).map(|user| latest(&data, user, *length)).collect();
        let slices: Vec<&[Event]> = histories.iter().map(Vec::as_slice).collect();
        let states = model.encode(&slices).expect("histories are encoded");
        for precision in PRECISIONS {
            let kept: Vec<SequenceState> =
                states.iter().map(|state| keep(state, model.dimension(), precision)).collect();
            let name = match fusion {
                Fusion::Concat => format!("concat, {}", precision.name()),
                Fusion::CrossAttention => format!("cross-attention, {length} events, {}", precision.name()),
            };
            let figures = figures(&model, &ads, &states, &kept);
            rows.entry(name).or_default().push(figures);
        }
    }
}

fn keep(state: &[f32], dimension: usize, precision: Precision) -> SequenceState {
    SequenceState::new(state, dimension, precision).expect("a state of 200 events fits")
}

fn figures(
    model: &Model,
    ads: &[UnitVector],
    exact: &[Vec<f32>],
    kept: &[SequenceState],
) -> BTreeMap<&'static str, f64> {
    let asked = Asked {
        contexts: (0..CATEGORIES).map(looking_at).collect(),
        demographics: Demographics { age: Some(30), country: Some("BR".into()), gender: None },
    };
    let embed = |inputs: &[HeadInput<'_>]| model.embed_queries(inputs).expect("queries are embedded");
    let alone = median_us(REQUESTS, |turn| {
        let row = turn % kept.len();
        let state = kept[row].values();
        black_box(embed(&[asked.by(row, &state)]));
    });
    let read = median_us(REQUESTS, |turn| drop(black_box(kept[turn % kept.len()].values())));
    let [in_sixteen, in_sixty_four] = BATCHES.map(|batch| {
        let turn = |turn: usize| {
            let state = |row: usize| kept[(turn * batch + row) % kept.len()].values();
            let states: Vec<Vec<f32>> = (0..batch).map(state).collect();
            let inputs: Vec<HeadInput<'_>> =
                states.iter().enumerate().map(|(row, state)| asked.by(row, state)).collect();
            black_box(embed(&inputs));
        };
        median_us(REQUESTS / batch, turn) / batch as f64
    });
    let (mut overlap, mut off) = (0, 0f32);
    for (row, (exact, kept)) in exact.iter().zip(kept).enumerate() {
        let (wanted, found) = (embed(&[asked.by(row, exact)]), embed(&[asked.by(row, &kept.values())]));
        let (wanted, found) = (scores(&wanted[0], ads), scores(&found[0], ads));
        off = wanted.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(off, f32::max);
        overlap += best(&wanted).intersection(&best(&found)).count();
    }
    BTreeMap::from([
        ("state_bytes", kept[0].bytes().len() as f64),
        ("us_per_request", alone),
        ("us_per_request_in_batch_of_16", in_sixteen),
        ("us_per_request_in_batch_of_64", in_sixty_four),
        ("us_reading_the_state", read),
        ("overlap@100_with_f32", overlap as f64 / (kept.len() * TOP) as f64),
        ("score_difference_max", f64::from(off)),
    ])
}

/// What every request has besides its state.
struct Asked {
    contexts: Vec<Context>,
    demographics: Demographics,
}

impl Asked {
    fn by<'a>(&'a self, row: usize, state: &'a [f32]) -> HeadInput<'a> {
        let context = Some(&self.contexts[row % self.contexts.len()]);
        HeadInput { state: Some(state), context, demographics: &self.demographics }
    }
}

fn scores(query: &UnitVector, ads: &[UnitVector]) -> Vec<f32> {
    ads.iter().map(|ad| dot(query.as_slice(), ad.as_slice())).collect()
}

/// The positions of the best [`TOP`].
fn best(scores: &[f32]) -> HashSet<usize> {
    let mut top = TopK::new(TOP);
    for (position, score) in scores.iter().enumerate() {
        // Scores lie in -1..=1; a whole number of billionths orders them.
        top.push(((-f64::from(*score) * 1e9) as i64, position));
    }
    top.into_sorted().into_iter().map(|(_, position)| position).collect()
}

/// The median time of `count` calls, in microseconds, after as many again by a tenth to warm up.
fn median_us(count: usize, mut work: impl FnMut(usize)) -> f64 {
    (0..count / 10).for_each(&mut work);
    let mut times: Vec<f64> = (0..count)
        .map(|turn| {
            let started = Instant::now();
            work(turn);
            started.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[count / 2]
}

fn report(path: &str, rows: &Rows) -> Value {
    let git = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let commit = git.ok().filter(|done| done.status.success());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let row = |(name, seeds): (&String, &Vec<BTreeMap<&'static str, f64>>)| {
        let mean = |metric: &str| seeds.iter().map(|seed| seed[metric]).sum::<f64>() / seeds.len() as f64;
        let means: BTreeMap<&str, f64> = seeds[0].keys().map(|metric| (*metric, mean(metric))).collect();
        json!({ "name": name, "mean": means, "seeds": seeds })
    };
    json!({
        "command": format!("RAYON_NUM_THREADS=1 cargo bench -p turret-model --bench head -- {path}"),
        "commit": commit.map_or_else(String::new, |done| String::from_utf8_lossy(&done.stdout).trim().to_owned()),
        "machine": format!("{cores} cores, {}", std::env::consts::ARCH),
        "seeds": SEEDS,
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
    })
}

/// Users with a liking for one category, an event an hour.
fn log(seed: u64) -> Dataset {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let items: Vec<Item> = (0..ITEMS).map(item).collect();
    let users = (0..USERS).map(|id| User { id: UserId::from(id), demographics: Demographics::default() }).collect();
    let mut rows = Vec::new();
    for user in 0..USERS {
        for event in 0..EVENTS {
            let own = random.random_bool(0.5);
            let category = if own { user % CATEGORIES } else { random.random_range(0..CATEGORIES) };
            let item = category + CATEGORIES * random.random_range(0..ITEMS / CATEGORIES);
            let (at, kind) = (event * 3_600_000, EventType::View);
            rows.push(Row { user: user as u32, item: item as u32, at, session: None, kind });
        }
    }
    Dataset::new(items, Vec::new(), users, Clock::Milliseconds, rows)
}

fn item(number: u64) -> Item {
    Item {
        id: ItemId::from(number),
        advertiser: Some(AdvertiserId::from(number % 20)),
        interests: vec![Interest { id: InterestId::from(number % CATEGORIES), confidence: 0.9 }],
        price: Some(number as f32),
        title: None,
        embedding: None,
    }
}

fn looking_at(category: u64) -> Context {
    let interests = vec![Interest { id: InterestId::from(category), confidence: 0.8 }];
    Context { subject: Some(Subject { item_id: None, interests }), query: None }
}

/// The latest events of a user, oldest first.
fn latest(data: &Dataset, user: u32, length: usize) -> Vec<Event> {
    let rows = data.events_of(user);
    let event = |row: &Row| Event {
        item_id: data.items[row.item as usize].id.clone(),
        event_type: row.kind,
        timestamp_ms: row.at,
        event_id: None,
    };
    rows[rows.len() - length..].iter().map(event).collect()
}

fn model_settings(fusion: Fusion) -> ModelSettings {
    ModelSettings {
        kind: ModelKind::Contextual,
        subject_item: false,
        fusion,
        dimension: 64,
        layers: 2,
        heads: 2,
        feed_forward: 128,
        head_hidden: 128,
        attention: Attention::Causal,
        history_length_max: LENGTHS[2],
        id_buckets: 4_096,
        advertiser_buckets: 64,
        query_buckets: 0,
        content_embedding: false,
    }
}

fn training_settings(seed: u64) -> TrainingSettings {
    TrainingSettings {
        seed,
        steps: 60,
        batch_size: 32,
        negatives: 64,
        learning_rate: 0.005,
        warmup_steps: 10,
        weight_decay: 0.01,
        temperature: 0.1,
        log_q_positives: 1.0,
        log_q_negatives: 1.0,
        objective: Objective::AllAction,
        window_days: 1,
        window_events: 1,
        event_weights: EventWeights { view: 1.0, add_to_cart: 1.0, checkout: 1.0, signup: 1.0 },
        half_life_hours: None,
        history_gap: HistoryGap::None,
        encoder_dropout: 0.1,
        context_dropout: 0.2,
        context_drop: 0.3,
        id_drop: 0.1,
        history_drop: 0.1,
        demographics_drop: 0.1,
        synthetic_context: SyntheticContext {
            query_share: 0.0,
            label_share: 0.5,
            confidence_noise: 0.3,
            interest_drop: 0.2,
            interest_add: 0.2,
        },
        validation_every_steps: 0,
        validation_cases_max: 1,
        keep_best: false,
        patience: 0,
    }
}
