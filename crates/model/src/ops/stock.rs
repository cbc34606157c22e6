//! The same operations by candle's own, on any device: the oracle of ours, and what runs where ours do not.

use std::ops::Range;

use candle_core::{D, DType, Device, Result, Tensor};

use super::encoder::{Encoding, LayerShape};
use super::{Activation, Bags, Mask, SampledSoftmax};

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

pub(super) fn bag(table: &Tensor, bags: &Bags) -> Result<Tensor> {
    let (device, width) = (table.device(), table.dim(1)?);
    let sums = Tensor::zeros((bags.len(), width), DType::F32, device)?;
    let entries: Vec<_> = bags.entries().collect();
    if entries.is_empty() {
        return Ok(sums);
    }
    let column = |values: Vec<u32>| Tensor::from_vec(values, entries.len(), device);
    let rows = column(entries.iter().map(|(_, row, _)| *row).collect())?;
    let owners = column(entries.iter().map(|(bag, _, _)| *bag).collect())?;
    let weights: Vec<f32> = entries.iter().map(|(_, _, weight)| *weight).collect();
    let weights = Tensor::from_vec(weights, (entries.len(), 1), device)?;
    sums.index_add(&owners, &table.index_select(&rows, 0)?.broadcast_mul(&weights)?, 0)
}

pub(super) fn sampled_softmax(queries: &Tensor, ads: &Tensor, softmax: &SampledSoftmax) -> Result<Tensor> {
    let (rows, columns) = (queries.dim(0)?, ads.dim(0)?);
    let mut corrections = softmax.as_negative.repeat(rows);
    let mut is_target = vec![0.0f32; rows * columns];
    for (row, target) in softmax.targets.iter().map(|target| *target as usize).enumerate() {
        corrections[row * columns + target] = softmax.as_positive[target];
        is_target[row * columns + target] = 1.0;
    }
    let matrix = |values: Vec<f32>| Tensor::from_vec(values, (rows, columns), queries.device());
    let scores = queries.matmul(&ads.t()?)?;
    let logits = ((scores / f64::from(softmax.temperature))? + matrix(corrections)?)?;
    let positives = (&logits * matrix(is_target)?)?.sum(1)?;
    (logits.log_sum_exp(1)? - positives)?.mean_all()
}

pub(super) fn encode(tokens: &Tensor, numbers: &Tensor, encoding: &Encoding) -> Result<Tensor> {
    let shape = encoding.layer;
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
        let mixed = attention(&joined, &encoding.starts, shape)?;
        let mixed = affine(&mixed, &take(&[d, d])?, &take(&[d])?, Activation::Identity)?;
        states = (states + dropout(&mixed, encoding.masks[2 * layer + 1])?)?;
        let normal = layer_norm(&states, &take(&[d])?, &take(&[d])?)?;
        let wide = affine(&normal, &take(&[d, f])?, &take(&[f])?, Activation::Gelu)?;
        let narrow = affine(&wide, &take(&[f, d])?, &take(&[d])?, Activation::Identity)?;
        states = (states + dropout(&narrow, encoding.masks[2 * layer + 2])?)?;
    }
    states.index_select(&Tensor::new(&*encoding.wanted, states.device())?, 0)
}

/// Attends within each sequence, padded to the longest. `joined` is [tokens, 3 width]: queries, keys, values.
fn attention(joined: &Tensor, starts: &[usize], shape: LayerShape) -> Result<Tensor> {
    let device = joined.device();
    let (heads, size) = (shape.heads, shape.width / shape.heads);
    let (sequences, length) = (starts.len() - 1, starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0));
    // Which token stands at each padded place, and which places hold one.
    let (mut tokens, mut places) = (vec![0u32; sequences * length], Vec::new());
    for (sequence, pair) in starts.windows(2).enumerate() {
        for place in 0..pair[1] - pair[0] {
            tokens[sequence * length + place] = (pair[0] + place) as u32;
            places.push((sequence * length + place) as u32);
        }
    }
    let padded = joined.index_select(&Tensor::from_vec(tokens, sequences * length, device)?, 0)?;
    let padded = padded.reshape((sequences, length, 3, heads, size))?.permute((2, 0, 3, 1, 4))?;
    let part = |number: usize| padded.get(number)?.contiguous();
    let scores = (part(0)?.matmul(&part(1)?.t()?.contiguous()?)? / (size as f64).sqrt())?;
    let weights = softmax(&scores.broadcast_add(&hidden(starts, length, shape.causal, device)?)?)?;
    let mixed = weights.matmul(&part(2)?)?.transpose(1, 2)?.reshape((sequences * length, shape.width))?;
    let count = places.len();
    mixed.index_select(&Tensor::from_vec(places, count, device)?, 0)
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

/// What is added to scores, [sequences, 1, length, length]: far below any score where a token must not be seen.
fn hidden(starts: &[usize], length: usize, causal: bool, device: &Device) -> Result<Tensor> {
    let mut values = Vec::with_capacity((starts.len() - 1) * length * length);
    for pair in starts.windows(2) {
        for query in 0..length {
            let seen = |token: usize| token < pair[1] - pair[0] && !(causal && token > query);
            values.extend((0..length).map(|token| if seen(token) { 0.0f32 } else { -1e9 }));
        }
    }
    Tensor::from_vec(values, (starts.len() - 1, 1, length, length), device)
}
