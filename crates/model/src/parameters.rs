//! The model's numbers: the embedding table and the named dense tensors, and how they start.

use candle_core::{Device, Result, Tensor};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::settings::{ModelKind, ModelSettings};

/// The name of the embedding table among the tensors.
pub(crate) const TABLE: &str = "table";
/// The standard deviation of a new embedding.
const EMBEDDING_DEVIATION: f32 = 0.05;

/// Matrices at the end of a residual branch.
const CLOSES_RESIDUAL: [&str; 5] =
    ["projection.weight", "contract.weight", "attention.output.weight", "head.output.weight", "ads.output.weight"];
/// They start small, so that at first a query is the state of its latest event and an ad embedding its item's vector,
/// which share the table: then items of one interest are near each other before anything is learnt.
const RESIDUAL_SCALE: f32 = 0.2;

/// One dense tensor.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Parameter {
    /// Such as `encoder.0.query_key_value.weight`; what stands before the first dot is the tower.
    pub(crate) name: String,
    /// Rows and columns, or only a length.
    pub(crate) shape: Vec<usize>,
    /// Row by row.
    pub(crate) values: Vec<f32>,
}

impl Parameter {
    /// A tensor of its own on `device`, outside any graph.
    pub(crate) fn tensor(&self, device: &Device) -> Result<Tensor> {
        Tensor::from_slice(&self.values, self.shape.as_slice(), device)
    }

    /// Whether weight decay applies: to matrices, not to biases and gains.
    pub(crate) fn decays(&self) -> bool {
        self.name.ends_with(".weight")
    }
}

/// The names and shapes of the dense tensors under `settings`, in their order in files.
pub(crate) fn shapes(settings: &ModelSettings, content_dimension: usize) -> Vec<(String, Vec<usize>)> {
    let d = settings.dimension;
    let mut all = Vec::new();
    let norm = |all: &mut Vec<(String, Vec<usize>)>, name: String| {
        all.push((format!("{name}.gain"), vec![d]));
        all.push((format!("{name}.bias"), vec![d]));
    };
    let affine = |all: &mut Vec<(String, Vec<usize>)>, name: String, from: usize, to: usize| {
        all.push((format!("{name}.weight"), vec![from, to]));
        all.push((format!("{name}.bias"), vec![to]));
    };
    for layer in 0..settings.layers {
        norm(&mut all, format!("encoder.{layer}.attention_norm"));
        affine(&mut all, format!("encoder.{layer}.query_key_value"), d, 3 * d);
        affine(&mut all, format!("encoder.{layer}.projection"), d, d);
        norm(&mut all, format!("encoder.{layer}.feed_forward_norm"));
        affine(&mut all, format!("encoder.{layer}.expand"), d, settings.feed_forward);
        affine(&mut all, format!("encoder.{layer}.contract"), settings.feed_forward, d);
    }
    norm(&mut all, "encoder.norm".to_owned());
    if content_dimension > 0 {
        // Part of the item vector, so of the encoder and of the ad tower alike.
        all.push(("items.content.weight".to_owned(), vec![content_dimension, d]));
    }
    all.push(("head.no_history".to_owned(), vec![1, d]));
    let contextual = match settings.kind {
        ModelKind::Contextual => {
            affine(&mut all, "head.context".to_owned(), if settings.subject_item { 2 * d } else { d }, d);
            d
        }
        ModelKind::HistoryOnly => 0,
    };
    let attended = if settings.keeps_events() {
        affine(&mut all, "head.attention.query".to_owned(), d, d);
        // A bias of the keys would add the same to every score; one of the values is part of the output's.
        all.push(("head.attention.key.weight".to_owned(), vec![d, d]));
        all.push(("head.attention.value.weight".to_owned(), vec![d, d]));
        affine(&mut all, "head.attention.output".to_owned(), d, d);
        d
    } else {
        0
    };
    affine(&mut all, "head.hidden".to_owned(), 4 * d + contextual + attended, settings.head_hidden);
    affine(&mut all, "head.output".to_owned(), settings.head_hidden, d);
    norm(&mut all, "ads.norm".to_owned());
    affine(&mut all, "ads.hidden".to_owned(), d, settings.head_hidden);
    affine(&mut all, "ads.output".to_owned(), settings.head_hidden, d);
    all
}

/// New dense tensors: gains 1, biases 0, matrices Glorot normal.
pub(crate) fn initial(settings: &ModelSettings, content_dimension: usize, random: &mut ChaCha8Rng) -> Vec<Parameter> {
    let fill = |(name, shape): (String, Vec<usize>)| {
        let count = shape.iter().product();
        let values = if name.ends_with(".gain") {
            vec![1.0; count]
        } else if name.ends_with(".bias") {
            vec![0.0; count]
        } else if name.ends_with(".weight") {
            let deviation = (2.0 / shape.iter().sum::<usize>() as f32).sqrt();
            let closes = CLOSES_RESIDUAL.iter().any(|part| name.ends_with(part));
            normal(count, if closes { RESIDUAL_SCALE * deviation } else { deviation }, random)
        } else {
            normal(count, EMBEDDING_DEVIATION, random)
        };
        Parameter { name, shape, values }
    };
    shapes(settings, content_dimension).into_iter().map(fill).collect()
}

/// A new embedding table of `rows` rows.
pub(crate) fn initial_table(rows: usize, dimension: usize, random: &mut ChaCha8Rng) -> Vec<f32> {
    normal(rows * dimension, EMBEDDING_DEVIATION, random)
}

/// `count` draws from the normal distribution of mean 0, by the Box-Muller transform.
fn normal(count: usize, deviation: f32, random: &mut ChaCha8Rng) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        // 1 - u is never 0, whose logarithm is infinite.
        let radius = (-2.0 * (1.0 - random.random::<f32>()).ln()).sqrt() * deviation;
        let angle = std::f32::consts::TAU * random.random::<f32>();
        values.push(radius * angle.cos());
        values.push(radius * angle.sin());
    }
    values.truncate(count);
    values
}
