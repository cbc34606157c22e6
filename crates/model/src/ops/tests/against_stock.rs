//! Ours against candle's, at sizes that fill neither tiles nor groups.

use super::*;

/// The gradients of all `variables` under a weighted sum of `out`.
pub(super) fn gradients(variables: &[Var], out: &Tensor) -> Vec<Tensor> {
    let weights: Vec<f32> = (0..out.elem_count()).map(|i| ((i * 7 + 3) % 11) as f32 / 5.0 - 1.0).collect();
    let weights = Tensor::from_vec(weights, out.shape(), out.device()).unwrap();
    let grads = (out * weights).unwrap().sum_all().unwrap().backward().unwrap();
    variables.iter().map(|variable| grads.get(variable).unwrap().clone()).collect()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Panics where the two differ by more than a ten-thousandth of the largest value.
pub(super) fn same(what: &str, mine: &Tensor, stock: &Tensor) {
    assert_eq!(mine.dims(), stock.dims(), "{what}");
    let (mine, stock) = (values(mine), values(stock));
    let largest = stock.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    for (at, (mine, stock)) in mine.iter().zip(&stock).enumerate() {
        assert!((mine - stock).abs() <= 1e-4 * (1e-3 + largest), "{what}[{at}]: {mine} where {stock}, {largest}");
    }
}

/// The sums of bags by candle's operations.
fn stock_bag(table: &Tensor, bags: &Bags) -> Result<Tensor> {
    let (device, width) = (table.device(), table.dim(1)?);
    let sums = Tensor::zeros((bags.len(), width), candle_core::DType::F32, device)?;
    let entries: Vec<_> = bags.entries().collect();
    if entries.is_empty() {
        return Ok(sums);
    }
    let column = |values: Vec<u32>| Tensor::from_vec(values, entries.len(), device);
    let rows = column(entries.iter().map(|(_, row, _)| *row as u32).collect())?;
    let owners = column(entries.iter().map(|(bag, _, _)| *bag as u32).collect())?;
    let weights: Vec<f32> = entries.iter().map(|(_, _, weight)| *weight).collect();
    let weights = Tensor::from_vec(weights, (entries.len(), 1), device)?;
    sums.index_add(&owners, &table.index_select(&rows, 0)?.broadcast_mul(&weights)?, 0)
}

/// Runs `op` on both backends and compares results and gradients.
fn agree(what: &str, variables: &[Var], op: impl Fn(Backend) -> Result<Tensor>) {
    let (mine, stock) = (op(Backend::Own).unwrap(), op(Backend::Stock).unwrap());
    same(what, &mine, &stock);
    let grads = gradients(variables, &mine).into_iter().zip(gradients(variables, &stock));
    grads.enumerate().for_each(|(number, (mine, stock))| same(&format!("{what}, variable {number}"), &mine, &stock));
}

#[test]
fn single_operations_are_those_of_candle() {
    for activation in [Activation::Identity, Activation::Gelu] {
        let (x, weight, bias) = (variable((5_000, 7), 1), variable((7, 18), 2), row(18, 3));
        let all = [x.clone(), weight.clone(), bias.clone()];
        agree("affine", &all, |backend| backend.affine(&x, &weight, &bias, activation));
    }
    let (x, gain, bias) = (variable((700, 19), 1), row(19, 2), row(19, 3));
    let all = [x.clone(), gain.clone(), bias.clone()];
    agree("layer norm", &all, |backend| backend.layer_norm(&x, &gain, &bias));
    agree("unit rows", std::slice::from_ref(&x), |backend| backend.unit_rows(&x));
    let mask = Mask { rate: 0.3, seed: 5 };
    agree("dropout", std::slice::from_ref(&x), |backend| backend.dropout(&x, mask));
    let mut bags = Bags::default();
    for number in 0..2_000u32 {
        bags.push(number * 17 % 700, number as f32 / 1_000.0 - 1.0);
        if number % 3 == 0 {
            bags.close();
        }
    }
    bags.close();
    bags.close();
    same("bag", &bag(&x, &bags, &Device::Cpu).unwrap(), &stock_bag(&x, &bags).unwrap());
    let (queries, events) = (variable((4, 38), 6), variable((9, 19), 7));
    let spans: std::sync::Arc<[std::ops::Range<usize>]> = [0..3, 0..2, 3..3, 3..9].into();
    let all = [queries.clone(), events.clone()];
    agree("absorbed attention", &all, |backend| backend.absorbed_attention(&queries, &events, &spans, 0.7));
}

#[test]
fn the_softmax_over_many_blocks_is_that_of_candle() {
    let (queries, ads) = (variable((2_500, 6), 1), variable((37, 6), 2));
    let settings = softmax(2_500, 37);
    let all = [queries.clone(), ads.clone()];
    agree("softmax", &all, |backend| backend.sampled_softmax(&queries, &ads, &settings)?.reshape((1, 1)));
}

/// An encoder of `layers` over sequences that end at `ends`, wanted at `wanted`.
pub(super) fn encoding(layer: LayerShape, layers: usize, ends: &[usize], wanted: Vec<u32>, rate: f32) -> Encoding {
    let masks = (0..=2 * layers as u32).map(|seed| Mask { rate, seed }).collect();
    let starts = std::iter::once(0).chain(ends.iter().copied()).collect();
    Encoding { layer, layers, starts, wanted: wanted.into(), masks }
}

#[test]
fn the_encoder_is_that_of_candle() {
    let layer = LayerShape { width: 12, feed_forward: 20, heads: 2, causal: true };
    let ends = [3, 3, 40, 41, 300, 301, 555, 560];
    let lasts = || vec![2, 39, 40, 299, 300, 554];
    let (x, numbers) = (variable((560, 12), 1), row(2 * layer.count(), 2));
    let all = [x.clone(), numbers.clone()];
    for causal in [true, false] {
        let some = vec![1, 20, 300, 301, 555];
        for (wanted, rate) in
            [(lasts(), 0.0), (some, 0.2), ((0..560).collect(), 0.2), ((300..310).collect(), 0.2), (vec![559], 0.0)]
        {
            let encoding = encoding(LayerShape { causal, ..layer }, 2, &ends, wanted, rate);
            agree("encoder", &all, |backend| backend.encode(&x, &numbers, encoding.clone()));
        }
    }
}

#[test]
fn the_encoder_has_the_gradient_of_its_differences() {
    let layer = LayerShape { width: 4, feed_forward: 3, heads: 2, causal: true };
    let (x, numbers) = (variable((7, 4), 4), row(layer.count(), 5));
    for causal in [true, false] {
        let encoding = encoding(LayerShape { causal, ..layer }, 1, &[3, 3, 7], vec![0, 2, 6], 0.0);
        check("encoder", &[x.clone(), numbers.clone()], || OWN.encode(&x, &numbers, encoding.clone()));
    }
}

#[test]
fn an_encoder_computes_only_what_is_wanted_and_mixes_only_what_may_be_seen() {
    let layer = LayerShape { width: 12, feed_forward: 8, heads: 2, causal: true };
    let numbers = row(2 * layer.count(), 3);
    let out = |x: &Var, causal, wanted| -> Vec<Vec<f32>> {
        let encoding = encoding(LayerShape { causal, ..layer }, 2, &[2, 6], wanted, 0.1);
        OWN.encode(x, &numbers, encoding).unwrap().to_vec2().unwrap()
    };
    let first = variable((6, 12), 1);
    let all = out(&first, true, (0..6).collect());
    assert_eq!(out(&first, true, vec![0, 1, 5]), [all[0].clone(), all[1].clone(), all[5].clone()]);
    // Where one token of a sequence is asked for, sums have another order.
    for [one, other] in [[1, 5], [0, 3]] {
        let few = out(&first, true, vec![one, other]);
        for (few, all) in few.iter().zip([&all[one as usize], &all[other as usize]]) {
            assert!(few.iter().zip(all).all(|(few, all)| (few - all).abs() < 1e-5), "{few:?} where {all:?}");
        }
    }
    // A sequence is encoded to the same bits alone and beside another.
    let alone = |range: std::ops::Range<usize>| -> Vec<Vec<f32>> {
        let x = first.narrow(0, range.start, range.len()).unwrap();
        let encoding = encoding(layer, 2, &[range.len()], vec![range.len() as u32 - 1], 0.0);
        OWN.encode(&x, &numbers, encoding).unwrap().to_vec2().unwrap()
    };
    let beside = OWN.encode(&first, &numbers, encoding(layer, 2, &[2, 6], vec![1, 5], 0.0)).unwrap();
    assert_eq!(beside.to_vec2::<f32>().unwrap(), [alone(0..2), alone(2..6)].concat());
    let mut changed = first.to_vec2::<f32>().unwrap();
    changed[4].iter_mut().for_each(|x| *x = 0.5 - *x);
    let changed = Var::from_vec(changed.into_iter().flatten().collect(), (6, 12), &Device::Cpu).unwrap();
    let same = |causal| -> Vec<bool> {
        let rows = || (0..6).collect::<Vec<u32>>();
        out(&first, causal, rows()).iter().zip(&out(&changed, causal, rows())).map(|(a, b)| a == b).collect()
    };
    assert_eq!(same(true), [true, true, true, true, false, false]);
    assert_eq!(same(false), [true, true, false, false, false, false]);
}
