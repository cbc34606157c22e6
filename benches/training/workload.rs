//! What is trained and encoded: models, and the shapes of their batches.

use turret_model::{
    Attention, EventWeights, Fusion, HistoryGap, ModelKind, ModelSettings, Objective, Predicts, SyntheticContext,
    TrainingSettings, TrialShape,
};

/// Events before an event of Globo's log, 50 at most: the middle of each thirty-second of the events.
const GLOBO: [usize; 32] =
    [1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5, 6, 7, 8, 9, 9, 11, 12, 13, 15, 16, 19, 21, 24, 28, 32, 39, 49, 50, 50];
/// Events of a user of MovieLens-1M before the last one, 200 at most: the middle of each thirty-second of the users.
const MOVIELENS: [usize; 32] = [
    20, 22, 24, 27, 30, 34, 37, 41, 45, 49, 55, 61, 66, 73, 80, 89, 99, 107, 118, 129, 143, 157, 173, 196, 200, 200,
    200, 200, 200, 200, 200, 200,
];

/// One workload.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) shape: TrialShape,
    pub(crate) model: ModelSettings,
    pub(crate) training: TrainingSettings,
    /// Steps and encodings of a turn; the states after every event are nothing that is encoded for serving.
    pub(crate) repeat: [Option<usize>; 2],
}

pub(crate) fn workloads() -> Vec<Workload> {
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
