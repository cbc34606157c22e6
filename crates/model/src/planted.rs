//! A small world for tests, whose truth is known: within a session every item is of one category, a user's sessions are
//! mostly of the user's own category, and women look at the first half of a category, men at the second.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use turret_retrieval::dataset::{Clock, Dataset, Part, PartError, Parts, Row};
use turret_retrieval::event::EventType;
use turret_retrieval::ids::{AdvertiserId, InterestId, ItemId, UserId};
use turret_retrieval::item::{Ad, Interest, Item};
use turret_retrieval::user::{Demographics, User};

use crate::features::{Schema, Words};
use crate::settings::*;

pub(crate) const CATEGORIES: u64 = 8;
/// In the titles of each category.
pub(crate) const NOUNS: [&str; CATEGORIES as usize] =
    ["chair", "bottle", "lantern", "jacket", "bicycle", "teapot", "necklace", "rug"];
pub(crate) const ITEMS_EACH: u64 = 60;
pub(crate) const DAYS: i64 = 10;
pub(crate) const DAY_MS: i64 = 86_400_000;

pub(crate) fn item(number: u64) -> Item {
    let interest = Interest { id: InterestId::from(number / ITEMS_EACH), confidence: 0.9 };
    Item {
        id: ItemId::from(number),
        advertiser: Some(AdvertiserId::from(number % 5)),
        interests: vec![interest],
        price: Some(number as f32),
        title: Some(format!("Fine {}", NOUNS[(number / ITEMS_EACH) as usize % NOUNS.len()])),
        embedding: Some(vec![number as f32, 1.0, -1.0]),
    }
}

pub(crate) fn world(users: u64, clock: Clock) -> Dataset {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let items: Vec<Item> = (0..CATEGORIES * ITEMS_EACH).map(item).collect();
    let ads = items
        .iter()
        .map(|item| Ad {
            id: turret_retrieval::ids::AdId::new(item.id.as_str()).unwrap(),
            item: item.id.clone(),
            attributes: Default::default(),
        })
        .collect();
    let mut rows = Vec::new();
    let mut session = 0;
    for user in 0..users {
        let mut order = 0;
        for day in 0..DAYS {
            session += 1;
            let own = random.random_bool(0.6);
            let category = if own { user % CATEGORIES } else { random.random_range(0..CATEGORIES) };
            for event in 0..3 {
                let half = (user / CATEGORIES % 2) * (ITEMS_EACH / 2);
                let item = category * ITEMS_EACH + half + random.random_range(0..ITEMS_EACH / 2);
                let at = day * DAY_MS + 3_600_000 * (1 + user as i64 % 20) + event * 60_000;
                let kind = if event == 2 { EventType::Checkout } else { EventType::View };
                let at = if clock == Clock::Order { order } else { at };
                let session = (clock == Clock::Milliseconds).then_some(session);
                rows.push(Row { user: user as u32, item: item as u32, at, session, kind });
                order += 1;
            }
        }
    }
    let person = |user: u64| User {
        id: UserId::from(user),
        demographics: Demographics {
            age: (!user.is_multiple_of(3)).then_some(20 + (user % 40) as u8),
            country: Some("BR".into()),
            gender: Some(if (user / CATEGORIES).is_multiple_of(2) { "female" } else { "male" }.into()),
        },
    };
    Dataset::new(items, ads, (0..users).map(person).collect(), clock, rows)
}

/// A log in parts: user u of the whole is in part u modulo their number.
pub(crate) struct InParts(pub(crate) Vec<Dataset>);

impl InParts {
    pub(crate) fn of(data: &Dataset, count: usize) -> Self {
        let part = |number: usize| {
            let own: Vec<usize> = (number..data.users.len()).step_by(count).collect();
            let rows = (0..)
                .zip(&own)
                .flat_map(|(user, of)| data.events_of(*of as u32).iter().map(move |row| Row { user, ..*row }));
            let users = own.iter().map(|user| data.users[*user].clone()).collect();
            Dataset::new(data.items.clone(), Vec::new(), users, data.clock, rows.collect())
        };
        Self((0..count).map(part).collect())
    }
}

impl Parts for InParts {
    fn items(&self) -> &[Item] {
        &self.0[0].items
    }

    fn clock(&self) -> Clock {
        self.0[0].clock
    }

    fn count(&self) -> usize {
        self.0.len()
    }

    fn read(&self, number: usize) -> Result<Part<'_>, PartError> {
        self.0.get(number).map(Part::Whole).ok_or_else(|| PartError { number, source: "there is no such part".into() })
    }
}

/// The schema of `data` under `settings`.
pub(crate) fn schema(data: &Dataset, settings: &ModelSettings) -> Schema {
    let mut words = Words::default();
    words.count(&data.users);
    Schema::of(&data.items, &words, settings)
}

/// The last day is for testing.
pub(crate) const SPLIT: Split = Split::temporal((DAYS - 1) * DAY_MS, DAYS * DAY_MS);

pub(crate) fn evaluation() -> EvaluationSettings {
    EvaluationSettings {
        seed: 1,
        cases_max: None,
        bootstrap_samples: 0,
        cases: CaseChoice::Last,
        target_events: Vec::new(),
        state_age_days: Vec::new(),
    }
}

/// Evaluates every arm of both models on the data.
pub(crate) fn evaluate(
    (data, split): (&Dataset, &Split),
    settings: &EvaluationSettings,
    (history_only, contextual): (&crate::Model, &crate::Model),
) -> Result<crate::EvaluationReport, crate::EvaluateError> {
    let evaluation = crate::Evaluation { data, split, settings, log: None };
    let models = [("history only", history_only), ("contextual", contextual)]
        .map(|(name, model)| crate::Contender { name: name.to_owned(), model });
    evaluation.run(&crate::Arms::of(&evaluation, &models), &mut |_| std::ops::ControlFlow::Continue(()))
}

pub(crate) fn model(kind: ModelKind) -> ModelSettings {
    ModelSettings {
        kind,
        subject_item: true,
        fusion: Fusion::Concat,
        dimension: 16,
        layers: 1,
        heads: 2,
        feed_forward: 24,
        head_hidden: 32,
        attention: Attention::Causal,
        history_length_max: 20,
        id_buckets: 512,
        advertiser_buckets: 16,
        query_buckets: 4_096,
        content_embedding: false,
    }
}

pub(crate) fn training(steps: usize) -> TrainingSettings {
    TrainingSettings {
        seed: 3,
        steps,
        batch_size: 64,
        negatives: 32,
        learning_rate: 0.01,
        warmup_steps: steps.min(10),
        weight_decay: 0.01,
        temperature: 0.1,
        log_q_positives: 1.0,
        log_q_negatives: 1.0,
        objective: Objective::AllAction,
        window_days: 2,
        window_events: 4,
        event_weights: EventWeights { view: 1.0, add_to_cart: 1.0, checkout: 2.0, signup: 1.0 },
        half_life_hours: None,
        history_gap: HistoryGap::Day,
        encoder_dropout: 0.1,
        context_dropout: 0.2,
        context_drop: 0.3,
        id_drop: 0.1,
        history_drop: 0.1,
        demographics_drop: 0.1,
        synthetic_context: SyntheticContext {
            query_share: 0.2,
            label_share: 0.5,
            confidence_noise: 0.3,
            interest_drop: 0.2,
            interest_add: 0.2,
        },
        validation_every_steps: 0,
        validation_cases_max: 100,
        keep_best: true,
        patience: 0,
    }
}
