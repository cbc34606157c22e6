//! Multi-head attention over sequences that lie one after the other, without padding.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{add_scaled, exp, slice, with_values};

/// Attends within each sequence. `qkv` is [tokens, 3 * width]: queries, keys, values; sequence s is the tokens
/// `starts[s]..starts[s + 1]`. The result is [tokens, width].
pub(crate) fn attention(qkv: &Tensor, starts: &Arc<[usize]>, heads: usize, causal: bool) -> Result<Tensor> {
    let (tokens, width) = qkv.dims2()?;
    if starts.last() != Some(&tokens) || !width.is_multiple_of(3 * heads) {
        bail!("{} sequences do not cover {tokens} tokens of width {width}", starts.len());
    }
    qkv.contiguous()?.apply_op1(PackedAttention { starts: starts.clone(), heads, causal, width: width / 3 })
}

struct PackedAttention {
    starts: Arc<[usize]>,
    heads: usize,
    causal: bool,
    width: usize,
}

/// The queries, keys and values of one head of one sequence, and scratch space.
#[derive(Default)]
struct Head {
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    // [head width, length]: rows of scores are then sums of rows, which vectorise.
    key_columns: Vec<f32>,
    value_columns: Vec<f32>,
    weights: Vec<f32>,
}

impl Head {
    /// Copies head `head` out of `qkv`, the tokens of one sequence.
    fn load(&mut self, qkv: &[f32], width: usize, heads: usize, head: usize) {
        let size = width / heads;
        let length = qkv.len() / (3 * width);
        for (part, out) in [&mut self.query, &mut self.key, &mut self.value].into_iter().enumerate() {
            out.clear();
            for token in 0..length {
                out.extend_from_slice(&qkv[token * 3 * width + part * width + head * size..][..size]);
            }
        }
        transpose(&self.key, size, &mut self.key_columns);
        transpose(&self.value, size, &mut self.value_columns);
        self.weights.clear();
        self.weights.resize(length * length, 0.0);
    }

    /// Softmax of the scaled scores; row i of `weights` says how much token i takes from each.
    fn attend(&mut self, size: usize, causal: bool) {
        let length = self.query.len() / size;
        let scale = 1.0 / (size as f32).sqrt();
        for token in 0..length {
            let visible = if causal { token + 1 } else { length };
            let row = &mut self.weights[token * length..][..visible];
            for (column, query) in self.query[token * size..][..size].iter().enumerate() {
                add_scaled(row, query * scale, &self.key_columns[column * length..][..visible]);
            }
            let top = row.iter().fold(f32::MIN, |top, score| if *score > top { *score } else { top });
            row.iter_mut().for_each(|score| *score = exp(*score - top));
            let scale = 1.0 / row.iter().sum::<f32>();
            row.iter_mut().for_each(|weight| *weight *= scale);
        }
    }
}

fn transpose(x: &[f32], width: usize, out: &mut Vec<f32>) {
    let length = x.len() / width;
    out.clear();
    out.resize(x.len(), 0.0);
    for (row, values) in x.chunks_exact(width).enumerate() {
        for (column, value) in values.iter().enumerate() {
            out[column * length + row] = *value;
        }
    }
}

impl PackedAttention {
    /// Calls `f(tokens of the sequence, its part of out)` for every sequence, in parallel.
    fn for_sequences(
        &self,
        out: &mut [f32],
        width: usize,
        f: impl Fn(&mut Head, std::ops::Range<usize>, &mut [f32]) + Sync,
    ) {
        let mut parts = Vec::with_capacity(self.starts.len());
        let mut rest = out;
        for pair in self.starts.windows(2) {
            let (part, tail) = rest.split_at_mut((pair[1] - pair[0]) * width);
            parts.push((pair[0]..pair[1], part));
            rest = tail;
        }
        parts
            .into_par_iter()
            .with_min_len(8)
            .for_each_init(Head::default, |head, (tokens, part)| f(head, tokens, part));
    }

    fn forward(&self, qkv: &[f32]) -> Vec<f32> {
        let (width, size) = (self.width, self.width / self.heads);
        let mut out = vec![0.0; qkv.len() / 3];
        self.for_sequences(&mut out, width, |state, tokens, out| {
            let length = tokens.len();
            for head in 0..self.heads {
                state.load(&qkv[tokens.start * 3 * width..tokens.end * 3 * width], width, self.heads, head);
                state.attend(size, self.causal);
                for token in 0..length {
                    let out = &mut out[token * width + head * size..][..size];
                    for (other, weight) in state.weights[token * length..][..length].iter().enumerate() {
                        add_scaled(out, *weight, &state.value[other * size..][..size]);
                    }
                }
            }
        });
        out
    }

    fn backward(&self, qkv: &[f32], grad: &[f32]) -> Vec<f32> {
        let (width, size) = (self.width, self.width / self.heads);
        let scale = 1.0 / (size as f32).sqrt();
        let mut out = vec![0.0; qkv.len()];
        self.for_sequences(&mut out, 3 * width, |state, tokens, out| {
            let length = tokens.len();
            let mut grad_score = vec![0.0; length];
            for head in 0..self.heads {
                state.load(&qkv[tokens.start * 3 * width..tokens.end * 3 * width], width, self.heads, head);
                state.attend(size, self.causal);
                let part = |token: usize, part: usize| (token * 3 + part) * width + head * size;
                for token in 0..length {
                    let visible = if self.causal { token + 1 } else { length };
                    let weights = &state.weights[token * length..][..visible];
                    let grad = &grad[(tokens.start + token) * width + head * size..][..size];
                    let grad_score = &mut grad_score[..visible];
                    grad_score.fill(0.0);
                    for (column, grad) in grad.iter().enumerate() {
                        add_scaled(grad_score, *grad, &state.value_columns[column * length..][..visible]);
                    }
                    let mean: f32 = weights.iter().zip(grad_score.iter()).map(|(weight, grad)| weight * grad).sum();
                    for other in 0..visible {
                        let through = weights[other] * (grad_score[other] - mean) * scale;
                        let query = &state.query[token * size..][..size];
                        add_scaled(&mut out[part(token, 0)..][..size], through, &state.key[other * size..][..size]);
                        add_scaled(&mut out[part(other, 1)..][..size], through, query);
                        add_scaled(&mut out[part(other, 2)..][..size], weights[other], grad);
                    }
                }
            }
        });
        out
    }
}

impl CustomOp1 for PackedAttention {
    fn name(&self) -> &'static str {
        "packed-attention"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let qkv = slice(qkv, layout)?;
        let tokens = qkv.len() / (3 * self.width);
        Ok((CpuStorage::F32(self.forward(qkv)), Shape::from((tokens, self.width))))
    }

    fn bwd(&self, qkv: &Tensor, _result: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let values = with_values(qkv, |qkv| with_values(grad, |grad| Ok(self.backward(qkv, grad))))?;
        Tensor::from_vec(values, qkv.shape(), qkv.device()).map(Some)
    }
}
