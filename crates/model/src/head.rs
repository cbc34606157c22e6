//! The online half on a CPU, for serving: the head of [`towers`](crate::towers), with all that does not depend on a request
//! computed when the model is loaded.
//!
//! * What the hidden layer makes of an age, a country and a gender is a row of a table: three of five products are gone.
//! * A query of cross-attention and the keys' projection are one matrix, the values' projection and the output another.
//! * Nothing is a tensor, and a product is made by [`Packed`], one row at a time or four.
//!
//! The network itself is the oracle of its tests, and what runs on a GPU.

use crate::features::Features;
use crate::inputs::HeadRows;
use crate::ops::{Activation, Look, Packed, Scratch, add_mean, add_rows, add_scaled, gelu_of_sums, times_transposed};
use crate::parameters::Parameter;
use crate::settings::{ModelKind, ModelSettings};

/// See the module.
pub(crate) struct Head {
    width: usize,
    no_history: Vec<f32>,
    /// Of the content embedding of a subject.
    content: Option<Packed>,
    context: Option<Layer>,
    attention: Option<Attention>,
    /// Of the state, what was attended to and the context; its activation follows when all is added.
    hidden: Packed,
    hidden_bias: Vec<f32>,
    /// What the hidden layer adds for each row of ages, countries and genders.
    demographics: Vec<f32>,
    /// The first of those rows in the table of embeddings.
    demographics_first: u32,
    output: Layer,
}

/// `activation(x W + b)`.
struct Layer {
    weight: Packed,
    bias: Vec<f32>,
    activation: Activation,
}

impl Layer {
    fn apply(&self, x: &[f32]) -> Vec<f32> {
        let mut out = self.weight.product(x);
        match self.activation {
            Activation::Identity => add_rows(&mut out, &self.bias),
            Activation::Gelu => gelu_of_sums(&mut out, &self.bias),
        }
        out
    }
}

/// The context asks the encoded events.
struct Attention {
    /// From the context to the query of each head, as wide as the events that it asks: [width, heads * width].
    query: Layer,
    /// From the mean of each head to what the head hears: [heads * width, width].
    output: Layer,
    scale: f32,
}

/// The numbers of one model, by name.
struct Numbers<'a>(&'a [Parameter]);

impl<'a> Numbers<'a> {
    fn find(&self, name: &str) -> &'a Parameter {
        // A model without one of its tensors is refused before: its network could not be made.
        self.0.iter().find(|parameter| parameter.name == name).expect("a model has all its tensors")
    }

    fn layer(&self, name: &str, activation: Activation) -> Layer {
        let bias = self.find(&format!("{name}.bias")).values.clone();
        let weight = Packed::new(&self.find(&format!("{name}.weight")).values, bias.len());
        Layer { weight, bias, activation }
    }
}

/// What the head reads of some requests.
pub(crate) struct HeadStates<'a> {
    /// The state after the latest event of each, [rows, width].
    pub(crate) last: Vec<f32>,
    /// The states of all events of each; empty where there is no history, or the head does not ask them.
    pub(crate) events: Vec<&'a [f32]>,
}

impl Head {
    /// Of the tensors of a model and the embeddings of its table.
    pub(crate) fn new(settings: &ModelSettings, features: &Features, parameters: &[Parameter], table: &[f32]) -> Self {
        let (width, numbers) = (settings.dimension, Numbers(parameters));
        let is_contextual = settings.kind == ModelKind::Contextual;
        let hidden = numbers.find("head.hidden.weight");
        let bias = numbers.find("head.hidden.bias").values.clone();
        let rows = features.demographic_rows();
        // The hidden layer's input ends with age, country and gender.
        let (first, last) = hidden.values.split_at(hidden.values.len() - 3 * width * bias.len());
        let mut demographics = Vec::new();
        for (rows, weight) in rows.iter().zip(last.chunks_exact(width * bias.len())) {
            let of_rows = &table[rows.start as usize * width..rows.end as usize * width];
            demographics.extend(Packed::new(weight, bias.len()).product(of_rows));
        }
        let content = (is_contextual && settings.subject_item && features.schema.content_dimension() > 0)
            .then(|| Packed::new(&numbers.find("items.content.weight").values, width));
        Self {
            width,
            no_history: numbers.find("head.no_history").values.clone(),
            content,
            context: is_contextual.then(|| numbers.layer("head.context", Activation::Gelu)),
            attention: settings.keeps_events().then(|| Attention::new(settings, &numbers)),
            hidden: Packed::new(first, bias.len()),
            hidden_bias: bias,
            demographics,
            demographics_first: rows[0].start,
            output: numbers.layer("head.output", Activation::Identity),
        }
    }

    /// The state that stands for no history.
    pub(crate) fn no_history(&self) -> &[f32] {
        &self.no_history
    }

    /// Query embeddings, [rows, width], of any length.
    pub(crate) fn apply(&self, rows: &HeadRows, states: HeadStates<'_>, table: &[f32]) -> Vec<f32> {
        let width = self.width;
        let HeadStates { last, events } = states;
        let mut context = None;
        let mut attended = None;
        if let Some(layer) = &self.context {
            let mut given = layer.apply(&self.context_input(rows, table));
            for (context, is_given) in given.chunks_exact_mut(width).zip(rows.given()) {
                context.iter_mut().for_each(|value| *value *= is_given);
            }
            attended = self.attention.as_ref().map(|attention| attention.apply(&given, &events, width));
            context = Some(given);
        }
        let parts = || [Some(&last), attended.as_ref(), context.as_ref()].into_iter().flatten();
        let mut joined = Vec::with_capacity(parts().count() * last.len());
        for row in 0..events.len() {
            parts().for_each(|part| joined.extend_from_slice(&part[row * width..(row + 1) * width]));
        }
        let mut hidden = self.hidden.product(&joined);
        let length = self.hidden_bias.len();
        for (row, hidden) in hidden.chunks_exact_mut(length).enumerate() {
            for number in rows.demographics_of(row) {
                let at = (number - self.demographics_first) as usize * length;
                add_scaled(hidden, 1.0, &self.demographics[at..at + length]);
            }
        }
        gelu_of_sums(&mut hidden, &self.hidden_bias);
        let mut query = self.output.apply(&hidden);
        add_scaled(&mut query, 1.0, &last);
        attended.iter().for_each(|attended| add_scaled(&mut query, 1.0, attended));
        query
    }

    /// The mean interest of each, then the subject's item vector where the model uses it.
    fn context_input(&self, rows: &HeadRows, table: &[f32]) -> Vec<f32> {
        let interests = rows.bags()[0].sums(table, self.width);
        let Some(subjects) = rows.subjects() else { return interests };
        let mut vectors = subjects.bags().sums(table, self.width);
        if let Some(content) = &self.content {
            add_scaled(&mut vectors, 1.0, &content.product(subjects.content()));
        }
        let pairs = interests.chunks_exact(self.width).zip(vectors.chunks_exact(self.width));
        pairs.flat_map(|(interest, vector)| [interest, vector].concat()).collect()
    }
}

impl Attention {
    fn new(settings: &ModelSettings, numbers: &Numbers<'_>) -> Self {
        let (width, heads) = (settings.dimension, settings.heads);
        let size = width / heads;
        let values = |name: &str| &numbers.find(name).values;
        let [query, key, value, output] = ["query.weight", "key.weight", "value.weight", "output.weight"]
            .map(|name| values(&format!("head.attention.{name}")));
        let query_bias = values("head.attention.query.bias");
        let columns = |matrix: &[f32], head: usize| -> Vec<f32> {
            matrix.chunks_exact(width).flat_map(|row| row[head * size..(head + 1) * size].to_vec()).collect()
        };
        let mut absorbed = vec![0.0; width * heads * width];
        let mut bias = Vec::new();
        let mut heard = Vec::new();
        for head in 0..heads {
            // [width, size] times the transpose of [width, size].
            let keys = columns(key, head);
            let of_head = times_transposed(&columns(query, head), &keys, size);
            for (row, from) in absorbed.chunks_exact_mut(heads * width).zip(of_head.chunks_exact(width)) {
                row[head * width..(head + 1) * width].copy_from_slice(from);
            }
            bias.extend(times_transposed(&query_bias[head * size..(head + 1) * size], &keys, size));
            let outputs = &output[head * size * width..(head + 1) * size * width];
            heard.extend(Packed::new(outputs, width).product(&columns(value, head)));
        }
        let activation = Activation::Identity;
        Self {
            query: Layer { weight: Packed::new(&absorbed, heads * width), bias, activation },
            output: Layer {
                weight: Packed::new(&heard, width),
                bias: values("head.attention.output.bias").clone(),
                activation,
            },
            scale: 1.0 / (size as f32).sqrt(),
        }
    }

    /// What the events say to each context, [rows, width].
    fn apply(&self, context: &[f32], events: &[&[f32]], width: usize) -> Vec<f32> {
        let queries = self.query.apply(context);
        let mut means = vec![0.0; queries.len()];
        let mut scratch = Scratch::default();
        let rows = queries.chunks_exact(self.query.bias.len()).zip(means.chunks_exact_mut(self.query.bias.len()));
        for ((queries, means), events) in rows.zip(events).filter(|(_, events)| !events.is_empty()) {
            for (query, mean) in queries.chunks_exact(width).zip(means.chunks_exact_mut(width)) {
                add_mean(Look { query, events, scale: self.scale }, mean, &mut scratch);
            }
        }
        self.output.apply(&means)
    }
}
