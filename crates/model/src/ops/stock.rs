//! The same operations by candle's own, on any device: the oracle of ours, and what runs where ours do not.

use std::ops::Range;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, D, DType, Device, Layout, Result, Shape, Storage, Tensor, bail};

use super::encoder::{Encoding, LayerShape};
use super::{Activation, Mask, SampledSoftmax};

pub(super) fn affine(x: &Tensor, weight: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    let out = x.matmul(weight)?.broadcast_add(bias)?;
    match activation {
        Activation::Identity => Ok(out),
        Activation::Gelu => out.gelu(),
    }
}

pub(super) fn layer_norm(x: &Tensor, gain: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normal = centred.broadcast_div(&(variance + 1e-5)?.sqrt()?)?;
    normal.broadcast_mul(gain)?.broadcast_add(bias)
}

pub(super) fn dropout(x: &Tensor, mask: Mask) -> Result<Tensor> {
    if mask.rate == 0.0 { Ok(x.clone()) } else { x * mask.factors(x.dims2()?, x.device())? }
}

pub(super) fn unit_rows(x: &Tensor) -> Result<Tensor> {
    let length = (x.sqr()?.sum_keepdim(1)? + 1e-12)?.sqrt()?;
    x.broadcast_div(&length)
}

pub(super) fn sampled_softmax(queries: &Tensor, ads: &Tensor, softmax: &SampledSoftmax) -> Result<Tensor> {
    let (device, rows, columns) = (queries.device(), queries.dim(0)?, ads.dim(0)?);
    let targets = Tensor::new(&*softmax.targets, device)?.unsqueeze(1)?;
    let extra = |target: &u32| softmax.as_positive[*target as usize] - softmax.as_negative[*target as usize];
    let extra = Tensor::from_vec(softmax.targets.iter().map(extra).collect::<Vec<f32>>(), (rows, 1), device)?;
    // Outside the graph: candle's gradient of a sum that was scattered into is wrong where it was.
    let extra = Tensor::zeros((rows, columns), DType::F32, device)?.scatter_add(&targets, &extra, 1)?;
    let scores = (queries.matmul(&ads.t()?)? / f64::from(softmax.temperature))?;
    let logits = (scores.broadcast_add(&Tensor::new(&*softmax.as_negative, device)?)? + extra)?;
    let positives = logits.gather(&targets, 1)?.squeeze(1)?;
    (logits.log_sum_exp(1)? - positives)?.mean_all()
}

pub(super) fn encode(tokens: &Tensor, numbers: &Tensor, encoding: &Encoding) -> Result<Tensor> {
    let shape = encoding.layer;
    let padding = Padding::new(&encoding.starts, shape.causal, tokens.device())?;
    let mut states = dropout(tokens, encoding.masks[0])?;
    for layer in 0..encoding.layers {
        let mut next = layer * shape.count();
        let mut take = |dims: &[usize]| {
            let count = dims.iter().product();
            next += count;
            numbers.narrow(0, next - count, count)?.reshape(dims)
        };
        let (d, f) = (shape.width, shape.feed_forward);
        let normal = layer_norm(&states, &take(&[d])?, &take(&[d])?)?;
        let joined = affine(&normal, &take(&[d, 3 * d])?, &take(&[3 * d])?, Activation::Identity)?;
        let mixed = attention(&joined, &padding, shape)?;
        let mixed = affine(&mixed, &take(&[d, d])?, &take(&[d])?, Activation::Identity)?;
        states = (states + dropout(&mixed, encoding.masks[2 * layer + 1])?)?;
        let normal = layer_norm(&states, &take(&[d])?, &take(&[d])?)?;
        let wide = affine(&normal, &take(&[d, f])?, &take(&[f])?, Activation::Gelu)?;
        let narrow = affine(&wide, &take(&[f, d])?, &take(&[d])?, Activation::Identity)?;
        states = (states + dropout(&narrow, encoding.masks[2 * layer + 2])?)?;
    }
    wanted(&encoding.wanted, states.dim(0)?, states.device())?.of(&states)
}

/// Rows by their numbers, of which each is taken once or does not matter. candle's own `index_select` has a gradient that
/// adds up row after row, on a GPU too.
#[derive(Clone)]
struct Take {
    /// Which row each row of the result is.
    rows: Tensor,
    /// Which row of the result each row became.
    became: Tensor,
    /// 1 for the rows that became one, else 0; none where all did.
    taken: Option<Tensor>,
}

impl Take {
    fn of(&self, from: &Tensor) -> Result<Tensor> {
        from.contiguous()?.apply_op1(self.clone())
    }

    fn select<S: BackendStorage>(
        &self,
        from: &S,
        layout: &Layout,
        rows: &S,
        rows_layout: &Layout,
    ) -> Result<(S, Shape)> {
        let shape = Shape::from((rows_layout.shape().elem_count(), layout.shape().dims2()?.1));
        Ok((from.index_select(rows, layout, rows_layout, 0)?, shape))
    }
}

impl CustomOp1 for Take {
    fn name(&self) -> &'static str {
        "take"
    }

    fn cpu_fwd(&self, from: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (storage, rows_layout) = self.rows.storage_and_layout();
        let Storage::Cpu(rows) = &*storage else { bail!("what is taken is on the CPU, and its numbers are not") };
        self.select(from, layout, rows, rows_layout)
    }

    fn cuda_fwd(&self, from: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (storage, rows_layout) = self.rows.storage_and_layout();
        let Storage::Cuda(rows) = &*storage else { bail!("what is taken is on a GPU, and its numbers are not") };
        self.select(from, layout, rows, rows_layout)
    }

    fn bwd(&self, _from: &Tensor, _result: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.index_select(&self.became, 0)?;
        self.taken.as_ref().map_or_else(|| Ok(grad.clone()), |taken| grad.broadcast_mul(taken)).map(Some)
    }
}

/// Takes the `wanted` ones of `count` rows.
fn wanted(wanted: &[u32], count: usize, device: &Device) -> Result<Take> {
    let (mut became, mut taken) = (vec![0u32; count], vec![0.0f32; count]);
    for (number, row) in wanted.iter().enumerate() {
        became[*row as usize] = number as u32;
        taken[*row as usize] = 1.0;
    }
    Ok(Take {
        rows: Tensor::new(wanted, device)?,
        became: Tensor::from_vec(became, count, device)?,
        taken: Some(Tensor::from_vec(taken, (count, 1), device)?),
    })
}

/// How sequences are padded to the longest: the same in every layer.
struct Padding {
    sequences: usize,
    length: usize,
    /// Takes a token for each padded place; for those that hold none, the first one.
    pad: Take,
    /// Takes each token from its padded place.
    unpad: Take,
    /// What is added to scores, [sequences, 1, 1, length] and [1, 1, length, length]: far below any score where a token must
    /// not be seen.
    beyond: Tensor,
    later: Option<Tensor>,
}

impl Padding {
    fn new(starts: &[usize], causal: bool, device: &Device) -> Result<Self> {
        const HIDDEN: f32 = -1e9;
        let (sequences, length) =
            (starts.len() - 1, starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0));
        let count = sequences * length;
        let (mut tokens, mut holds, mut beyond) = (vec![0u32; count], vec![0.0f32; count], vec![HIDDEN; count]);
        let mut places = Vec::new();
        for (sequence, pair) in starts.windows(2).enumerate() {
            for place in 0..pair[1] - pair[0] {
                let padded = sequence * length + place;
                (tokens[padded], holds[padded], beyond[padded]) = ((pair[0] + place) as u32, 1.0, 0.0);
                places.push(padded as u32);
            }
        }
        let later = || -> Result<Tensor> {
            let values = (0..length).flat_map(|query| (0..length).map(move |token| (query, token)));
            let values: Vec<f32> = values.map(|(query, token)| if token > query { HIDDEN } else { 0.0 }).collect();
            Tensor::from_vec(values, (1, 1, length, length), device)
        };
        let (tokens, places) = (Tensor::from_vec(tokens, count, device)?, Tensor::new(&*places, device)?);
        let holds = Tensor::from_vec(holds, (count, 1), device)?;
        Ok(Self {
            sequences,
            length,
            // What is made of a place that holds none has no gradient.
            pad: Take { rows: tokens.clone(), became: places.clone(), taken: None },
            unpad: Take { rows: places, became: tokens, taken: Some(holds) },
            beyond: Tensor::from_vec(beyond, (sequences, 1, 1, length), device)?,
            later: causal.then(later).transpose()?,
        })
    }

    fn hide(&self, scores: &Tensor) -> Result<Tensor> {
        let scores = scores.broadcast_add(&self.beyond)?;
        self.later.as_ref().map_or_else(|| Ok(scores.clone()), |later| scores.broadcast_add(later))
    }
}

/// Attends within each sequence. `joined` is [tokens, 3 width]: queries, keys, values.
fn attention(joined: &Tensor, padding: &Padding, shape: LayerShape) -> Result<Tensor> {
    let (heads, size) = (shape.heads, shape.width / shape.heads);
    let Padding { sequences, length, .. } = *padding;
    let padded = padding.pad.of(joined)?;
    let padded = padded.reshape((sequences, length, 3, heads, size))?.permute((2, 0, 3, 1, 4))?;
    let part = |number: usize| padded.get(number)?.contiguous();
    let scores = (part(0)?.matmul(&part(1)?.t()?.contiguous()?)? / (size as f64).sqrt())?;
    let mixed = softmax(&padding.hide(&scores)?)?.matmul(&part(2)?)?;
    let mixed = mixed.transpose(1, 2)?.reshape((sequences * length, shape.width))?;
    padding.unpad.of(&mixed)
}

pub(super) fn absorbed_attention(
    queries: &Tensor,
    events: &Tensor,
    spans: &[Range<usize>],
    scale: f32,
) -> Result<Tensor> {
    let (device, (rows, columns)) = (queries.device(), queries.dims2()?);
    let width = events.dim(1)?;
    let length = spans.iter().map(Range::len).max().unwrap_or(0).max(1);
    let (mut tokens, mut hidden) = (Vec::new(), Vec::new());
    for span in spans {
        tokens.extend((0..length).map(|place| if place < span.len() { (span.start + place) as u32 } else { 0 }));
        hidden.extend((0..length).map(|place| if place < span.len() { 0.0f32 } else { -1e9 }));
    }
    let events = events.index_select(&Tensor::from_vec(tokens, rows * length, device)?, 0)?;
    let events = events.reshape((rows, length, width))?;
    let queries = queries.reshape((rows, columns / width, width))?;
    let scores = (queries.matmul(&events.t()?.contiguous()?)? * f64::from(scale))?;
    let weights = softmax(&scores.broadcast_add(&Tensor::from_vec(hidden, (rows, 1, length), device)?)?)?;
    let given: Vec<f32> = spans.iter().map(|span| if span.is_empty() { 0.0 } else { 1.0 }).collect();
    let means = weights.matmul(&events)?.broadcast_mul(&Tensor::from_vec(given, (rows, 1, 1), device)?)?;
    means.reshape((rows, columns))
}

fn softmax(scores: &Tensor) -> Result<Tensor> {
    let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
    weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)
}
