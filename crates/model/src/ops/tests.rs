use candle_core::{Device, Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

const OWN: Backend = Backend::Own;

fn variable(shape: (usize, usize), seed: u64) -> Var {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..shape.0 * shape.1).map(|_| random.random_range(-1.0..1.0)).collect();
    Var::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn row(length: usize, seed: u64) -> Var {
    Var::from_tensor(&variable((1, length), seed).as_tensor().flatten_all().unwrap()).unwrap()
}

/// Compares the gradient of every variable with central differences of a weighted sum of the operation's result.
fn check(name: &str, variables: &[Var], op: impl Fn() -> Result<Tensor>) {
    let loss = || -> Result<Tensor> {
        let out = op()?.flatten_all()?;
        let weights: Vec<f32> = (0..out.elem_count()).map(|i| ((i * 7 + 3) % 11) as f32 / 5.0 - 1.0).collect();
        let count = weights.len();
        (out * Tensor::from_vec(weights, count, &Device::Cpu)?)?.sum_all()
    };
    let grads = loss().unwrap().backward().unwrap();
    for (number, variable) in variables.iter().enumerate() {
        let grad = grads.get(variable).unwrap_or_else(|| panic!("{name}: variable {number} has no gradient"));
        let grad = grad.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let values = variable.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for at in 0..values.len() {
            let moved = |by: f32| {
                let mut values = values.clone();
                values[at] += by;
                variable.set(&Tensor::from_vec(values, variable.shape(), &Device::Cpu).unwrap()).unwrap();
                f64::from(loss().unwrap().to_scalar::<f32>().unwrap())
            };
            let slope = (moved(5e-3) - moved(-5e-3)) / 1e-2;
            moved(0.0);
            let error = (slope - f64::from(grad[at])).abs();
            assert!(error < 0.02 * (1.0 + slope.abs()), "{name}: variable {number}[{at}]: {} where {slope}", grad[at]);
        }
    }
}

#[test]
fn affine_has_the_gradient_of_its_differences() {
    for activation in [Activation::Identity, Activation::Gelu] {
        let (x, weight, bias) = (variable((5, 3), 1), variable((3, 4), 2), row(4, 3));
        let all = [x.clone(), weight.clone(), bias.clone()];
        check("affine", &all, || OWN.affine(&x, &weight, &bias, activation));
    }
}

#[test]
fn layer_norm_has_the_gradient_of_its_differences() {
    let (x, gain, bias) = (variable((4, 6), 1), row(6, 2), row(6, 3));
    check("layer norm", &[x.clone(), gain.clone(), bias.clone()], || OWN.layer_norm(&x, &gain, &bias));
}

#[test]
fn unit_rows_have_the_gradients_of_their_differences() {
    let x = variable((3, 5), 6);
    check("unit rows", std::slice::from_ref(&x), || OWN.unit_rows(&x));
}

fn softmax(rows: usize, columns: usize) -> SampledSoftmax {
    let corrections = |by: usize| (0..columns).map(|column| ((column * by) % 7) as f32 / 10.0 - 0.3).collect();
    SampledSoftmax {
        temperature: 0.5,
        targets: (0..rows).map(|row| ((row * 5 + 1) % columns) as u32).collect(),
        as_positive: corrections(3),
        as_negative: corrections(5),
    }
}

#[test]
fn softmax_has_the_gradient_of_its_differences() {
    let (queries, ads) = (variable((3, 5), 7), variable((4, 5), 8));
    let settings = softmax(3, 4);
    check("softmax", &[queries.clone(), ads.clone()], || OWN.sampled_softmax(&queries, &ads, &settings));
}

#[test]
fn dropout_keeps_the_mean_repeats_with_its_seed_and_has_a_gradient() {
    let ones = Tensor::ones((400, 50), candle_core::DType::F32, &Device::Cpu).unwrap();
    let values =
        |seed| OWN.dropout(&ones, Mask { rate: 0.4, seed }).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let dropped = values(1);
    let kept = dropped.iter().filter(|value| **value > 0.0).count() as f32 / 20_000.0;
    assert!((kept - 0.6).abs() < 0.02, "{kept}");
    assert!(dropped.iter().all(|value| *value == 0.0 || (*value - 1.0 / 0.6).abs() < 1e-5));
    assert_eq!(dropped, values(1));
    assert_ne!(dropped, values(2));
    let x = variable((3, 5), 8);
    check("dropout", std::slice::from_ref(&x), || OWN.dropout(&x, Mask { rate: 0.4, seed: 9 }));
}

#[test]
fn exp_is_within_a_millionth() {
    for step in -800..800 {
        let x = step as f32 / 10.0;
        let expected = f64::from(x).exp();
        assert!((f64::from(exp(x)) - expected).abs() <= 1e-6 * expected, "{x}");
    }
}

#[test]
fn absorbed_attention_has_the_gradient_of_its_differences() {
    let (queries, events) = (variable((5, 6), 11), variable((7, 3), 12));
    // Two rows that look at one history, one at nothing, and events that nobody looks at.
    let spans: std::sync::Arc<[std::ops::Range<usize>]> = [0..3, 0..2, 3..3, 4..6, 6..7].into();
    let all = [queries.clone(), events.clone()];
    check("absorbed attention", &all, || OWN.absorbed_attention(&queries, &events, &spans, 0.7));
    for wrong in [[0..3, 2..4, 4..4, 4..6, 6..7], [0..3, 0..2, 3..3, 4..6, 6..8], [4..6, 0..2, 3..3, 4..6, 6..7]] {
        let wrong: std::sync::Arc<[std::ops::Range<usize>]> = wrong.into();
        assert!(OWN.absorbed_attention(&queries, &events, &wrong, 0.7).is_err(), "{wrong:?}");
    }
}

#[test]
fn absorbing_the_projections_changes_no_result() {
    let (query, key, value, events) =
        (variable((1, 4), 1), variable((4, 4), 2), variable((4, 4), 3), variable((9, 4), 4));
    let whole: std::sync::Arc<[std::ops::Range<usize>]> = std::iter::once(0..9).collect();
    let absorbed = || -> Result<Tensor> {
        let query = query.matmul(&key.t()?)?;
        OWN.absorbed_attention(&query, &events, &whole, 0.5)?.matmul(&value)
    };
    let plain = || -> Result<Tensor> {
        let scores = (query.matmul(&events.matmul(&key)?.t()?)? * 0.5)?.exp()?;
        let weights = scores.broadcast_div(&scores.sum_keepdim(1)?)?;
        weights.matmul(&events.matmul(&value)?)
    };
    let (absorbed, plain) = (absorbed().unwrap().to_vec2::<f32>().unwrap(), plain().unwrap().to_vec2::<f32>().unwrap());
    for (a, b) in absorbed[0].iter().zip(&plain[0]) {
        assert!((a - b).abs() < 1e-5, "{a} where {b}");
    }
}

mod against_stock;
#[cfg(feature = "cuda")]
mod on_a_gpu;
