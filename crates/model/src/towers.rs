//! The network: encoder, head and ad tower, as functions of embeddings. Training, evaluation on a GPU and the encoder of
//! serving run this code; the head of serving on a CPU is [`head`](crate::head), which is tested against it.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Device, Error, Result, Tensor};

use crate::ops::{Activation, Backend, Encoding, LayerShape, Mask};
use crate::settings::{Attention, ModelKind, ModelSettings};

/// How much is dropped where. Serving drops nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dropout {
    /// Inside the encoder.
    pub(crate) encoder: f32,
    /// After the context layer.
    pub(crate) context: f32,
    /// Of this step; every place derives its own.
    pub(crate) seed: u32,
}

impl Dropout {
    /// Nothing is dropped.
    pub(crate) const NONE: Self = Self { encoder: 0.0, context: 0.0, seed: 0 };

    /// In the encoder: of the events, then after the attention and the feed-forward part of each layer.
    fn in_encoder(&self, layers: usize) -> Vec<Mask> {
        let place = |place: u32| self.seed.wrapping_add(place.wrapping_mul(0x9E37_79B9));
        (1..=2 * layers as u32 + 1).map(|number| Mask { rate: self.encoder, seed: place(number) }).collect()
    }
}

struct Affine {
    weight: Tensor,
    bias: Tensor,
}

impl Affine {
    fn apply(&self, x: &Tensor, activation: Activation, backend: Backend) -> Result<Tensor> {
        backend.affine(x, &self.weight, &self.bias, activation)
    }
}

struct Norm {
    gain: Tensor,
    bias: Tensor,
}

impl Norm {
    fn apply(&self, x: &Tensor, backend: Backend) -> Result<Tensor> {
        backend.layer_norm(x, &self.gain, &self.bias)
    }
}

/// The context asks the encoded events; without a context, the bias of `query` asks.
struct CrossAttention {
    query: Affine,
    key: Tensor,
    value: Tensor,
    output: Affine,
    heads: usize,
}

impl CrossAttention {
    /// What the events say to `context` [rows, dimension]: [rows, dimension].
    fn apply(&self, context: &Tensor, events: &EncodedEvents, backend: Backend) -> Result<Tensor> {
        let query = self.query.apply(context, Activation::Identity, backend)?;
        let (rows, width) = query.dims2()?;
        let size = width / self.heads;
        let of_head = |matrix: &Tensor, head: usize| matrix.narrow(1, head * size, size);
        let absorb = |head| of_head(&query, head)?.matmul(&of_head(&self.key, head)?.t()?);
        let queries: Vec<Tensor> = (0..self.heads).map(absorb).collect::<Result<_>>()?;
        let scale = 1.0 / (size as f32).sqrt();
        let means = backend.absorbed_attention(&Tensor::cat(&queries, 1)?, &events.states, &events.spans, scale)?;
        let means = means.reshape((rows, self.heads, width))?;
        let project = |head| means.narrow(1, head, 1)?.squeeze(1)?.contiguous()?.matmul(&of_head(&self.value, head)?);
        let values: Vec<Tensor> = (0..self.heads).map(project).collect::<Result<_>>()?;
        self.output.apply(&Tensor::cat(&values, 1)?, Activation::Identity, backend)
    }
}

/// The dense tensors, by their place.
pub(crate) struct Network {
    backend: Backend,
    layer: LayerShape,
    layers: usize,
    // The numbers of all layers, in the order of `shapes`.
    encoder: Tensor,
    norm: Norm,
    content: Option<Tensor>,
    no_history: Tensor,
    context: Option<Affine>,
    attention: Option<CrossAttention>,
    head: [Affine; 2],
    ads_norm: Norm,
    ads: [Affine; 2],
}

/// What the encoder left of the histories.
pub(crate) struct States {
    /// The state after the latest event, [rows, dimension]; [`Network::no_history`] where there is none.
    pub(crate) last: Tensor,
    /// Every encoded event, where the head asks them.
    pub(crate) events: Option<EncodedEvents>,
}

/// The sequence states of all events.
pub(crate) struct EncodedEvents {
    /// [events, dimension].
    pub(crate) states: Tensor,
    /// Which of them each row may look at; empty where there is no history.
    pub(crate) spans: Arc<[Range<usize>]>,
}

/// The embeddings that the head joins; all have one row for each query.
pub(crate) struct HeadEmbeddings {
    /// The histories.
    pub(crate) states: States,
    /// The context layer's input: the subject's mean interest, then its item vector if the model uses it.
    pub(crate) context: Option<Tensor>,
    /// 1 where there is a context, else 0; [rows, 1].
    pub(crate) context_given: Option<Tensor>,
    /// Age, country and gender.
    pub(crate) demographics: [Tensor; 3],
}

impl Network {
    /// Takes every tensor from `find`, by the names of [`shapes`](crate::parameters::shapes).
    ///
    /// # Errors
    /// Those of `find`.
    pub(crate) fn new(
        settings: &ModelSettings,
        content_dimension: usize,
        backend: Backend,
        find: &mut dyn FnMut(&str) -> Option<Tensor>,
    ) -> Result<Self> {
        let mut take = |name: String| find(&name).ok_or_else(|| Error::Msg(format!("there is no tensor {name}")));
        let norm = |take: &mut dyn FnMut(String) -> Result<Tensor>, name: &str| -> Result<Norm> {
            Ok(Norm { gain: take(format!("{name}.gain"))?, bias: take(format!("{name}.bias"))? })
        };
        let affine = |take: &mut dyn FnMut(String) -> Result<Tensor>, name: &str| -> Result<Affine> {
            Ok(Affine { weight: take(format!("{name}.weight"))?, bias: take(format!("{name}.bias"))? })
        };
        let mut encoder = Vec::new();
        for layer in 0..settings.layers {
            for part in ["attention_norm", "query_key_value", "projection", "feed_forward_norm", "expand", "contract"] {
                let first = if part.ends_with("norm") { "gain" } else { "weight" };
                for kind in [first, "bias"] {
                    encoder.push(take(format!("encoder.{layer}.{part}.{kind}"))?.flatten_all()?);
                }
            }
        }
        Ok(Self {
            backend,
            layer: LayerShape {
                width: settings.dimension,
                feed_forward: settings.feed_forward,
                heads: settings.heads,
                causal: settings.attention == Attention::Causal,
            },
            layers: settings.layers,
            encoder: Tensor::cat(&encoder, 0)?,
            norm: norm(&mut take, "encoder.norm")?,
            content: if content_dimension > 0 { Some(take("items.content.weight".to_owned())?) } else { None },
            no_history: take("head.no_history".to_owned())?,
            context: match settings.kind {
                ModelKind::Contextual => Some(affine(&mut take, "head.context")?),
                ModelKind::HistoryOnly => None,
            },
            attention: if settings.keeps_events() {
                Some(CrossAttention {
                    query: affine(&mut take, "head.attention.query")?,
                    key: take("head.attention.key.weight".to_owned())?,
                    value: take("head.attention.value.weight".to_owned())?,
                    output: affine(&mut take, "head.attention.output")?,
                    heads: settings.heads,
                })
            } else {
                None
            },
            head: [affine(&mut take, "head.hidden")?, affine(&mut take, "head.output")?],
            ads_norm: norm(&mut take, "ads.norm")?,
            ads: [affine(&mut take, "ads.hidden")?, affine(&mut take, "ads.output")?],
        })
    }

    /// Where its tensors are.
    pub(crate) fn device(&self) -> &Device {
        self.no_history.device()
    }

    /// The state that stands for no history, [1, dimension].
    pub(crate) fn no_history(&self) -> &Tensor {
        &self.no_history
    }

    /// Whether the head asks the encoded events, and not only the last state.
    pub(crate) fn keeps_events(&self) -> bool {
        self.attention.is_some()
    }

    /// Adds the projected content embeddings [rows, content dimension] to `embedded` [rows, dimension].
    pub(crate) fn with_content(&self, embedded: Tensor, content: Option<&Tensor>) -> Result<Tensor> {
        match (&self.content, content) {
            (Some(weight), Some(content)) => embedded + content.matmul(weight)?,
            (Some(_), None) | (None, _) => Ok(embedded),
        }
    }

    /// The sequence states after those of the events [tokens, dimension] that `wanted` names in ascending order:
    /// [wanted, dimension]. `starts` bounds the sequences.
    pub(crate) fn encode(
        &self,
        events: &Tensor,
        starts: Arc<[usize]>,
        wanted: Arc<[u32]>,
        drop: Dropout,
    ) -> Result<Tensor> {
        let masks = drop.in_encoder(self.layers);
        let encoding = Encoding { layer: self.layer, layers: self.layers, starts, wanted, masks };
        self.norm.apply(&self.backend.encode(events, &self.encoder, encoding)?, self.backend)
    }

    /// Query embeddings, [rows, dimension], of unit length.
    pub(crate) fn head(&self, inputs: HeadEmbeddings, drop: Dropout) -> Result<Tensor> {
        let [age, country, gender] = inputs.demographics;
        let mut query = inputs.states.last;
        let mut parts = vec![query.clone()];
        if let (Some(layer), Some(context), Some(given)) = (&self.context, &inputs.context, &inputs.context_given) {
            let context = layer.apply(context, Activation::Gelu, self.backend)?;
            let mask = Mask { rate: drop.context, seed: drop.seed };
            let context = self.backend.dropout(&context, mask)?.broadcast_mul(given)?;
            if let (Some(attention), Some(events)) = (&self.attention, &inputs.states.events) {
                let attended = attention.apply(&context, events, self.backend)?;
                query = (query + &attended)?;
                parts.push(attended);
            }
            parts.push(context);
        }
        parts.extend([age, country, gender]);
        let hidden = self.head[0].apply(&Tensor::cat(&parts, 1)?, Activation::Gelu, self.backend)?;
        self.backend.unit_rows(&(query + self.head[1].apply(&hidden, Activation::Identity, self.backend)?)?)
    }

    /// Ad embeddings, [rows, dimension], of unit length, out of item vectors.
    pub(crate) fn ads(&self, items: &Tensor) -> Result<Tensor> {
        let items = self.ads_norm.apply(items, self.backend)?;
        let hidden = self.ads[0].apply(&items, Activation::Gelu, self.backend)?;
        self.backend.unit_rows(&(items + self.ads[1].apply(&hidden, Activation::Identity, self.backend)?)?)
    }
}
