//! The transformer encoder as one operation: group by group of whole sequences, so that what a layer computes stays in
//! cache, and nothing of the size of the batch is made in between.
//!
//! The backward pass computes most of the forward pass again, which is cheaper than reading it from memory. The last
//! layer is computed only where a result is wanted. Groups depend on the lengths of the sequences alone, and gradients
//! are summed in their order, so that the number of threads changes nothing.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use self::layer::{Layer, Memory, Tape, Wanted};
use super::dropout::Mask;
use super::matrix::Matrix;
use super::{add_scaled, slice, strand_length, with_all_values};

mod absorbed;
mod attention;
mod layer;
mod projected;

pub(crate) use layer::LayerShape;

/// Tokens of a group of whole sequences, which one thread encodes: so many at least, unless it is the last.
const GROUP_TOKENS: usize = 256;

/// What is encoded, and how.
#[derive(Clone, Debug)]
pub(crate) struct Encoding {
    pub(crate) layer: LayerShape,
    pub(crate) layers: usize,
    /// Sequence s is the tokens `starts[s]..starts[s + 1]`.
    pub(crate) starts: Arc<[usize]>,
    /// The tokens whose hidden states are wanted, ascending.
    pub(crate) wanted: Arc<[u32]>,
    /// What is dropped: of the tokens, then after the attention and the feed-forward part of each layer.
    pub(crate) masks: Vec<Mask>,
}

/// The hidden states of the wanted tokens, [wanted, width], after all layers over `tokens` [tokens, width].
///
/// `numbers` holds those of every layer, one layer after the other, each in the order of
/// [`shapes`](crate::parameters::shapes).
pub(crate) fn encode(tokens: &Tensor, numbers: &Tensor, encoding: Encoding) -> Result<Tensor> {
    let (count, width) = tokens.dims2()?;
    let LayerShape { width: expected, heads, .. } = encoding.layer;
    let ascending = encoding.wanted.is_sorted_by(|a, b| a < b);
    let within = ascending && encoding.wanted.last().is_some_and(|last| (*last as usize) < count);
    if encoding.starts.last() != Some(&count) || width != expected || !width.is_multiple_of(heads) || !within {
        bail!("{} sequences do not cover {count} tokens of width {width}", encoding.starts.len());
    }
    if numbers.elem_count() != encoding.layers * encoding.layer.count()
        || encoding.masks.len() != 2 * encoding.layers + 1
    {
        bail!("{} numbers do not fill {} layers", numbers.elem_count(), encoding.layers);
    }
    let records = tokens.track_op() || numbers.track_op();
    let groups = groups(&encoding);
    let op = Encoder { encoding, groups, records, tapes: OnceLock::new() };
    tokens.contiguous()?.apply_op2(&numbers.contiguous()?, op)
}

/// Whole sequences that are encoded together.
struct Group {
    tokens: Range<usize>,
    /// Which of the wanted rows are its.
    rows: Range<usize>,
    /// Every layer but the last computes all tokens.
    all: Wanted,
    last: Wanted,
}

fn groups(encoding: &Encoding) -> Vec<Group> {
    let mut groups = Vec::new();
    let mut ends = Vec::new();
    let (mut first, mut row) = (0, 0);
    for (number, pair) in encoding.starts.windows(2).enumerate() {
        ends.push(pair[1] - first);
        if pair[1] - first < GROUP_TOKENS && number + 2 < encoding.starts.len() {
            continue;
        }
        let tokens = first..pair[1];
        let count = encoding.wanted[row..].partition_point(|wanted| (*wanted as usize) < tokens.end);
        let wanted = encoding.wanted[row..row + count].iter().map(|wanted| *wanted as usize - first).collect();
        groups.push(Group {
            rows: row..row + count,
            all: Wanted::new((0..tokens.len()).collect(), first, &ends),
            last: Wanted::new(wanted, first, &ends),
            tokens,
        });
        (first, row) = (pair[1], row + count);
        ends.clear();
    }
    groups
}

impl Wanted {
    /// `tokens` of a group that begins at token `first` and whose sequences end at `ends`.
    fn new(tokens: Vec<usize>, first: usize, ends: &[usize]) -> Self {
        let mut sequences = Vec::with_capacity(ends.len());
        let mut places = Vec::with_capacity(tokens.len());
        let (mut start, mut row) = (0, 0);
        for end in ends {
            let count = tokens[row..].partition_point(|token| token < end);
            places.extend(tokens[row..row + count].iter().map(|token| token - start));
            if count > 0 {
                sequences.push([start..*end, row..row + count]);
            }
            (start, row) = (*end, row + count);
        }
        let numbers = tokens.iter().map(|token| token + first).collect();
        Self { tokens, places, sequences, numbers }
    }
}

struct Encoder {
    encoding: Encoding,
    groups: Vec<Group>,
    /// Whether there will be a backward pass.
    records: bool,
    /// For each group, what its layers keep for the backward pass.
    tapes: OnceLock<Vec<Vec<Tape>>>,
}

impl Encoder {
    /// One layer, of the `numbers` of all.
    fn layer<'a>(&self, number: usize, numbers: &'a [f32]) -> Layer<'a> {
        Layer {
            shape: self.encoding.layer,
            values: &numbers[number * self.encoding.layer.count()..][..self.encoding.layer.count()],
            masks: [self.encoding.masks[2 * number + 1], self.encoding.masks[2 * number + 2]],
        }
    }

    fn wanted<'a>(&self, group: &'a Group, layer: usize) -> &'a Wanted {
        if layer + 1 == self.encoding.layers { &group.last } else { &group.all }
    }

    fn forward_group(
        &self,
        group: &Group,
        tokens: &[f32],
        numbers: &[f32],
        memory: &mut Memory,
    ) -> (Vec<f32>, Vec<Tape>) {
        if group.rows.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let width = self.encoding.layer.width;
        let mut tapes = Vec::new();
        let tokens = &tokens[group.tokens.start * width..group.tokens.end * width];
        let mut states = Cow::Borrowed(tokens);
        if self.encoding.masks[0].rate > 0.0 {
            self.encoding.masks[0].apply_rows(states.to_mut(), width, &group.all.numbers);
        }
        for number in 0..self.encoding.layers {
            let layer = self.layer(number, numbers);
            let (next, results) = layer.forward(&states, self.wanted(group, number), memory);
            if self.records {
                tapes.push(Tape::new(states.into_owned(), results));
            } else {
                memory.keep_all(results);
                if let Cow::Owned(states) = states {
                    memory.keep(Matrix::new(states, width));
                }
            }
            states = Cow::Owned(next);
        }
        (states.into_owned(), tapes)
    }

    /// The gradient of the group's tokens; adds those of all layers' numbers to `sums`.
    fn backward_group(
        &self,
        (group, tapes): (&Group, &[Tape]),
        grad: &[f32],
        numbers: &[f32],
        memory: &mut Memory,
        sums: &mut [f32],
    ) -> Vec<f32> {
        let width = self.encoding.layer.width;
        if group.rows.is_empty() {
            return vec![0.0; group.tokens.len() * width];
        }
        let mut grad = Matrix::new(grad[group.rows.start * width..group.rows.end * width].to_vec(), width);
        let layers = tapes.iter().zip(sums.chunks_exact_mut(self.encoding.layer.count())).enumerate();
        for (number, (tape, sums)) in layers.rev() {
            let wanted = self.wanted(group, number);
            grad = self.layer(number, numbers).backward(tape, grad, wanted, memory, sums);
        }
        self.encoding.masks[0].apply_rows(grad.values_mut(), width, &group.all.numbers);
        grad.into_values()
    }

    /// The gradients of tokens and numbers.
    fn backward(&self, grad: &[f32], numbers: &[f32]) -> Result<(Vec<f32>, Vec<f32>)> {
        let Some(tapes) = self.tapes.get() else { bail!("the encoder goes back before it went forward") };
        let strand = strand_length(self.groups.len(), 1);
        let strands: Vec<(Vec<Vec<f32>>, Vec<f32>)> = self
            .groups
            .par_chunks(strand)
            .zip(tapes.par_chunks(strand))
            .map(|(groups, tapes)| {
                let mut sums = vec![0.0; numbers.len()];
                let mut memory = Memory::default();
                let each = |(group, tapes): (&Group, &Vec<Tape>)| {
                    self.backward_group((group, tapes), grad, numbers, &mut memory, &mut sums)
                };
                let tokens = groups.iter().zip(tapes).map(each).collect();
                (tokens, sums)
            })
            .collect();
        let mut grad_numbers = vec![0.0; numbers.len()];
        let mut grad_tokens = Vec::new();
        for (tokens, sums) in strands {
            tokens.iter().for_each(|tokens| grad_tokens.extend_from_slice(tokens));
            add_scaled(&mut grad_numbers, 1.0, &sums);
        }
        Ok((grad_tokens, grad_numbers))
    }
}

impl CustomOp2 for Encoder {
    fn name(&self) -> &'static str {
        "encoder"
    }

    fn cpu_fwd(
        &self,
        tokens: &CpuStorage,
        tokens_layout: &Layout,
        numbers: &CpuStorage,
        numbers_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let tokens = slice(tokens, tokens_layout)?;
        let numbers = slice(numbers, numbers_layout)?;
        let groups = self.groups.par_iter();
        let forward = |memory: &mut Memory, group| self.forward_group(group, tokens, numbers, memory);
        let groups: Vec<(Vec<f32>, Vec<Tape>)> = groups.map_init(Memory::default, forward).collect();
        let width = self.encoding.layer.width;
        let mut states = Vec::with_capacity(self.encoding.wanted.len() * width);
        let mut tapes = Vec::with_capacity(groups.len());
        for (rows, tape) in groups {
            states.extend_from_slice(&rows);
            tapes.push(tape);
        }
        if self.tapes.set(tapes).is_err() {
            bail!("the encoder goes forward twice");
        }
        Ok((CpuStorage::F32(states), Shape::from((self.encoding.wanted.len(), width))))
    }

    fn bwd(
        &self,
        tokens: &Tensor,
        numbers: &Tensor,
        _result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (grad_tokens, grad_numbers) =
            with_all_values(&[numbers, grad], |values| self.backward(values[1], values[0]))?;
        let device = tokens.device();
        Ok((
            Some(Tensor::from_vec(grad_tokens, tokens.shape(), device)?),
            Some(Tensor::from_vec(grad_numbers, numbers.shape(), device)?),
        ))
    }
}
