//! Attention of one query a row over encoded events, with the projections of the keys absorbed into the query.
//!
//! A key is `event · Wk`, so `query · key` is `(Wk · query) · event`: with `Wk · query` made once for a row, keys are never
//! computed and only the events need to be kept. Likewise the values' projection is applied to the weighted sum.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::lanes::{dot, largest, sum, wide};
use super::{add_scaled, exp, slice, with_values};

/// For each row and head the mean of its events, weighted by the softmax of `scale * query · event`.
///
/// `queries` is [rows, heads * width], `events` [events, width], and row r looks at the events `spans[r]`; the result is
/// [rows, heads * width], zeros where a span is empty. Spans that are not empty must ascend by their start, and those of
/// different starts must be disjoint, as the histories of a batch are.
pub(crate) fn absorbed_attention(
    queries: &Tensor,
    events: &Tensor,
    spans: &Arc<[Range<usize>]>,
    scale: f32,
) -> Result<Tensor> {
    let ((rows, columns), (count, width)) = (queries.dims2()?, events.dims2()?);
    let absorbed = Absorbed { spans: spans.clone(), scale, width, columns };
    let groups = absorbed.groups();
    let ordered = groups.windows(2).all(|pair| pair[0].events.end <= pair[1].events.start);
    let within = groups.last().is_none_or(|last| last.events.end <= count);
    if spans.len() != rows || !columns.is_multiple_of(width) || !ordered || !within {
        bail!("{} spans of {count} events do not fit {rows} queries", spans.len());
    }
    queries.contiguous()?.apply_op2(&events.contiguous()?, absorbed)
}

struct Absorbed {
    spans: Arc<[Range<usize>]>,
    scale: f32,
    width: usize,
    columns: usize,
}

/// Rows that look at the same history, with the events that they look at.
struct Group {
    rows: Range<usize>,
    events: Range<usize>,
}

/// One query over some events, which are as wide as it.
#[derive(Clone, Copy)]
pub(crate) struct Look<'a> {
    pub(crate) query: &'a [f32],
    pub(crate) events: &'a [f32],
    /// Of the inner products, before their softmax.
    pub(crate) scale: f32,
}

/// What a look computes on its way: a number for each event.
#[derive(Default)]
pub(crate) struct Scratch {
    weights: Vec<f32>,
    through: Vec<f32>,
}

impl<'a> Look<'a> {
    #[inline(always)]
    fn events(self) -> std::slice::ChunksExact<'a, f32> {
        self.events.chunks_exact(self.query.len())
    }

    /// Fills `weights` with the share of each event.
    #[inline(always)]
    fn weigh(self, weights: &mut Vec<f32>) {
        weights.clear();
        weights.extend(self.events().map(|event| self.scale * dot(self.query, event)));
        let top = largest(weights);
        weights.iter_mut().for_each(|score| *score = exp(*score - top));
        let share = 1.0 / sum(weights);
        weights.iter_mut().for_each(|weight| *weight *= share);
    }
}

wide! {
    /// Adds the weighted mean of the events to `out`.
    pub(crate) fn add_mean(look: Look<'_>, out: &mut [f32], scratch: &mut Scratch) {
        look.weigh(&mut scratch.weights);
        for (event, weight) in look.events().zip(&scratch.weights) {
            add_scaled(out, *weight, event);
        }
    }
}

wide! {
    /// Adds to the gradients of the query and of the events, from that of the mean.
    pub(super) fn backward(look: Look<'_>, grad: &[f32], grads: (&mut [f32], &mut [f32]), scratch: &mut Scratch) {
        let (to_query, to_events) = grads;
        let Scratch { weights, through } = scratch;
        look.weigh(weights);
        through.clear();
        through.extend(look.events().map(|event| dot(grad, event)));
        let mean = dot(weights, through);
        let events = look.events().zip(to_events.chunks_exact_mut(look.query.len()));
        for ((event, to_event), (weight, through)) in events.zip(weights.iter().zip(through)) {
            let through = weight * (*through - mean) * look.scale;
            add_scaled(to_query, through, event);
            add_scaled(to_event, through, look.query);
            add_scaled(to_event, *weight, grad);
        }
    }
}

impl Absorbed {
    fn events_of<'a>(&self, row: usize, events: &'a [f32]) -> &'a [f32] {
        &events[self.spans[row].start * self.width..self.spans[row].end * self.width]
    }

    fn forward(&self, queries: &[f32], events: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; queries.len()];
        let rows = out.par_chunks_mut(self.columns).zip(queries.par_chunks(self.columns)).enumerate();
        rows.for_each_init(Scratch::default, |scratch, (row, (out, queries))| {
            let events = self.events_of(row, events);
            for (query, out) in queries.chunks_exact(self.width).zip(out.chunks_exact_mut(self.width)) {
                add_mean(Look { query, events, scale: self.scale }, out, scratch);
            }
        });
        out
    }

    /// The rows in groups of one history each; what lies between belongs to nobody.
    fn groups(&self) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for (row, span) in self.spans.iter().enumerate().filter(|(_, span)| !span.is_empty()) {
            match groups.last_mut().filter(|group| group.events.start == span.start) {
                Some(group) => {
                    group.rows.end = row + 1;
                    group.events.end = group.events.end.max(span.end);
                }
                None => groups.push(Group { rows: row..row + 1, events: span.clone() }),
            }
        }
        groups
    }

    /// The gradients of the queries and of the events.
    fn backward(&self, queries: &[f32], events: &[f32], grad: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (mut grad_queries, mut grad_events) = (vec![0.0; queries.len()], vec![0.0; events.len()]);
        let mut parts = Vec::new();
        let (mut rest_queries, mut rest_events) = (&mut grad_queries[..], &mut grad_events[..]);
        let (mut row, mut event) = (0, 0);
        for group in self.groups() {
            let (part, rest) = rest_queries.split_at_mut((group.rows.end - row) * self.columns);
            rest_queries = rest;
            let part_queries = &mut part[(group.rows.start - row) * self.columns..];
            let (part, rest) = rest_events.split_at_mut((group.events.end - event) * self.width);
            rest_events = rest;
            let part_events = &mut part[(group.events.start - event) * self.width..];
            (row, event) = (group.rows.end, group.events.end);
            parts.push((group, part_queries, part_events));
        }
        parts.into_par_iter().with_min_len(8).for_each_init(
            Scratch::default,
            |scratch, (group, to_queries, to_events)| {
                for row in group.rows.clone().filter(|row| !self.spans[*row].is_empty()) {
                    let of = row * self.columns..(row + 1) * self.columns;
                    let events = self.events_of(row, events);
                    let heads = queries[of.clone()].chunks_exact(self.width).zip(grad[of].chunks_exact(self.width));
                    let to_queries = &mut to_queries[(row - group.rows.start) * self.columns..][..self.columns];
                    for ((query, grad), to_query) in heads.zip(to_queries.chunks_exact_mut(self.width)) {
                        backward(Look { query, events, scale: self.scale }, grad, (to_query, to_events), scratch);
                    }
                }
            },
        );
        (grad_queries, grad_events)
    }
}

impl CustomOp2 for Absorbed {
    fn name(&self) -> &'static str {
        "absorbed-attention"
    }

    fn cpu_fwd(
        &self,
        queries: &CpuStorage,
        queries_layout: &Layout,
        events: &CpuStorage,
        events_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let out = self.forward(slice(queries, queries_layout)?, slice(events, events_layout)?);
        Ok((CpuStorage::F32(out), queries_layout.shape().clone()))
    }

    fn bwd(
        &self,
        queries: &Tensor,
        events: &Tensor,
        _result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (to_queries, to_events) = with_values(queries, |queries| {
            with_values(events, |events| with_values(grad, |grad| Ok(self.backward(queries, events, grad))))
        })?;
        let device = queries.device();
        Ok((
            Some(Tensor::from_vec(to_queries, queries.shape(), device)?),
            Some(Tensor::from_vec(to_events, events.shape(), device)?),
        ))
    }
}
