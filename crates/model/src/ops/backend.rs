//! Whose operations a network runs on.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor};

use super::absorbed_attention::absorbed_attention;
use super::affine::affine;
use super::dropout::dropout;
use super::encoder::encode;
use super::layer_norm::layer_norm;
use super::softmax::sampled_softmax;
use super::unit::unit_rows;
use super::{Activation, Encoding, Mask, SampledSoftmax, stock};

/// Whose operations a network runs on. Both compute the same, up to the order of sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// Ours: fast, and on the CPU alone.
    Own,
    /// candle's, on the device where the tensors are.
    Stock,
}

impl Backend {
    /// The faster one that runs on `device`.
    pub(crate) fn of(device: &Device) -> Self {
        match device {
            Device::Cpu => Self::Own,
            Device::Cuda(_) | Device::Metal(_) => Self::Stock,
        }
    }

    pub(crate) fn affine(self, x: &Tensor, weight: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
        match self {
            Self::Own => affine(x, weight, bias, activation),
            Self::Stock => stock::affine(x, weight, bias, activation),
        }
    }

    pub(crate) fn layer_norm(self, x: &Tensor, gain: &Tensor, bias: &Tensor) -> Result<Tensor> {
        match self {
            Self::Own => layer_norm(x, gain, bias),
            Self::Stock => stock::layer_norm(x, gain, bias),
        }
    }

    pub(crate) fn dropout(self, x: &Tensor, mask: Mask) -> Result<Tensor> {
        match self {
            Self::Own => dropout(x, mask),
            Self::Stock => stock::dropout(x, mask),
        }
    }

    pub(crate) fn unit_rows(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Own => unit_rows(x),
            Self::Stock => stock::unit_rows(x),
        }
    }

    pub(crate) fn absorbed_attention(
        self,
        queries: &Tensor,
        events: &Tensor,
        spans: &Arc<[Range<usize>]>,
        scale: f32,
    ) -> Result<Tensor> {
        match self {
            Self::Own => absorbed_attention(queries, events, spans, scale),
            Self::Stock => stock::absorbed_attention(queries, events, spans, scale),
        }
    }

    pub(crate) fn encode(self, tokens: &Tensor, numbers: &Tensor, encoding: Encoding) -> Result<Tensor> {
        match self {
            Self::Own => encode(tokens, numbers, encoding),
            Self::Stock => stock::encode(tokens, numbers, &encoding),
        }
    }

    pub(crate) fn sampled_softmax(self, queries: &Tensor, ads: &Tensor, softmax: &SampledSoftmax) -> Result<Tensor> {
        match self {
            Self::Own => sampled_softmax(queries, ads, softmax),
            Self::Stock => stock::sampled_softmax(queries, ads, softmax),
        }
    }
}
