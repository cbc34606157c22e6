use candle_core::{Device, Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

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
        check("affine", &all, || affine(&x, &weight, &bias, activation));
    }
}

#[test]
fn layer_norm_has_the_gradient_of_its_differences() {
    let (x, gain, bias) = (variable((4, 6), 1), row(6, 2), row(6, 3));
    check("layer norm", &[x.clone(), gain.clone(), bias.clone()], || layer_norm(&x, &gain, &bias));
}

#[test]
fn attention_has_the_gradient_of_its_differences() {
    for causal in [true, false] {
        let qkv = variable((7, 12), 4);
        // An empty sequence in the middle.
        let starts: std::sync::Arc<[usize]> = [0, 3, 3, 7].into();
        check("attention", std::slice::from_ref(&qkv), || attention(&qkv, &starts, 2, causal));
    }
}

#[test]
fn bags_unit_rows_and_softmax_have_the_gradients_of_their_differences() {
    let table = variable((4, 3), 5);
    let mut bags = Bags::default();
    for (row, weight) in [(0, 1.0), (2, 0.5), (0, -1.5)] {
        bags.push(row, weight);
    }
    bags.close();
    bags.close();
    bags.push(3, 2.0);
    bags.close();
    let bags = std::sync::Arc::new(bags);
    check("bag", std::slice::from_ref(&table), || bag(&table, &bags));

    let x = variable((3, 5), 6);
    check("unit rows", std::slice::from_ref(&x), || unit_rows(&x));
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
    check("softmax", &[queries.clone(), ads.clone()], || sampled_softmax(&queries, &ads, &settings));
}

/// The loss by candle's own operations.
fn plain_softmax(queries: &Tensor, ads: &Tensor, softmax: &SampledSoftmax) -> Tensor {
    let (rows, columns) = (queries.dim(0).unwrap(), ads.dim(0).unwrap());
    let mut corrections = softmax.as_negative.repeat(rows);
    let mut is_target = vec![0.0f32; rows * columns];
    for (row, target) in softmax.targets.iter().map(|target| *target as usize).enumerate() {
        corrections[row * columns + target] = softmax.as_positive[target];
        is_target[row * columns + target] = 1.0;
    }
    let matrix = |values: Vec<f32>| Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap();
    let scores = queries.matmul(&ads.t().unwrap()).unwrap();
    let logits = ((scores / f64::from(softmax.temperature)).unwrap() + matrix(corrections)).unwrap();
    let positives = (&logits * matrix(is_target)).unwrap().sum(1).unwrap();
    (logits.log_sum_exp(1).unwrap() - positives).unwrap().mean_all().unwrap()
}

#[test]
fn softmax_over_many_blocks_is_the_plain_one_and_scales_with_the_gradient_that_comes_in() {
    // Rows and columns that fill neither blocks nor lanes.
    let (queries, ads) = (variable((2_500, 6), 1), variable((37, 6), 2));
    let settings = softmax(2_500, 37);
    let mine = (sampled_softmax(&queries, &ads, &settings).unwrap() * 3.0).unwrap();
    let plain = (plain_softmax(&queries, &ads, &settings) * 3.0).unwrap();
    let value = |tensor: &Tensor| tensor.to_scalar::<f32>().unwrap();
    assert!((value(&mine) - value(&plain)).abs() < 1e-4, "{mine} where {plain}");
    let (mine, plain) = (mine.backward().unwrap(), plain.backward().unwrap());
    for variable in [&queries, &ads] {
        let (mine, plain) = (mine.get(variable).unwrap(), plain.get(variable).unwrap());
        let largest = |x: &Tensor| value(&x.abs().unwrap().flatten_all().unwrap().max(0).unwrap());
        assert!(largest(&(mine - plain).unwrap()) < 1e-4 * largest(plain));
    }
}

#[test]
fn dropout_keeps_the_mean_repeats_with_its_seed_and_has_a_gradient() {
    let ones = Tensor::ones((400, 50), candle_core::DType::F32, &Device::Cpu).unwrap();
    let values = |seed| dropout(&ones, 0.4, seed).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let dropped = values(1);
    let kept = dropped.iter().filter(|value| **value > 0.0).count() as f32 / 20_000.0;
    assert!((kept - 0.6).abs() < 0.02, "{kept}");
    assert!(dropped.iter().all(|value| *value == 0.0 || (*value - 1.0 / 0.6).abs() < 1e-5));
    assert_eq!(dropped, values(1));
    assert_ne!(dropped, values(2));
    let x = variable((3, 5), 8);
    check("dropout", std::slice::from_ref(&x), || dropout(&x, 0.4, 9));
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
fn attention_mixes_only_what_may_be_seen() {
    let first = variable((6, 12), 1);
    let starts: std::sync::Arc<[usize]> = [0, 2, 6].into();
    let out = |qkv: &Var, causal| attention(qkv, &starts, 2, causal).unwrap().to_vec2::<f32>().unwrap();
    let mut values = first.to_vec2::<f32>().unwrap();
    values[4].iter_mut().for_each(|x| *x += 1.0);
    let flat: Vec<f32> = values.into_iter().flatten().collect();
    let changed = Var::from_vec(flat, (6, 12), &Device::Cpu).unwrap();
    let same =
        |causal| -> Vec<bool> { out(&first, causal).iter().zip(&out(&changed, causal)).map(|(a, b)| a == b).collect() };
    assert_eq!(same(true), [true, true, true, true, false, false]);
    assert_eq!(same(false), [true, true, false, false, false, false]);
}

#[test]
fn absorbed_attention_has_the_gradient_of_its_differences() {
    let (queries, events) = (variable((5, 6), 11), variable((7, 3), 12));
    // Two rows that look at one history, one at nothing, and events that nobody looks at.
    let spans: std::sync::Arc<[std::ops::Range<usize>]> = [0..3, 0..2, 3..3, 4..6, 6..7].into();
    let all = [queries.clone(), events.clone()];
    check("absorbed attention", &all, || absorbed_attention(&queries, &events, &spans, 0.7));
    for wrong in [[0..3, 2..4, 4..4, 4..6, 6..7], [0..3, 0..2, 3..3, 4..6, 6..8], [4..6, 0..2, 3..3, 4..6, 6..7]] {
        let wrong: std::sync::Arc<[std::ops::Range<usize>]> = wrong.into();
        assert!(absorbed_attention(&queries, &events, &wrong, 0.7).is_err(), "{wrong:?}");
    }
}

#[test]
fn absorbing_the_projections_changes_no_result() {
    let (query, key, value, events) =
        (variable((1, 4), 1), variable((4, 4), 2), variable((4, 4), 3), variable((9, 4), 4));
    let whole: std::sync::Arc<[std::ops::Range<usize>]> = std::iter::once(0..9).collect();
    let absorbed = || -> Result<Tensor> {
        let query = query.matmul(&key.t()?)?;
        absorbed_attention(&query, &events, &whole, 0.5)?.matmul(&value)
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
