//! candle's operations on a GPU against ours on the CPU: for machines that have one, in a build with the `cuda` feature.

use super::against_stock::{encoding, gradients, same};
use super::*;

/// Runs `op` here and there, and compares results and gradients.
fn agree(what: &str, variables: &[Var], op: impl Fn(Backend, &[Var]) -> Result<Tensor>) {
    let gpu = Device::new_cuda(0).unwrap();
    let moved: Vec<Var> =
        variables.iter().map(|variable| Var::from_tensor(&variable.to_device(&gpu).unwrap()).unwrap()).collect();
    let (mine, theirs) = (op(Backend::Own, variables).unwrap(), op(Backend::of(&gpu), &moved).unwrap());
    same(what, &mine, &theirs.to_device(&Device::Cpu).unwrap());
    let grads = gradients(variables, &mine).into_iter().zip(gradients(&moved, &theirs));
    for (number, (mine, theirs)) in grads.enumerate() {
        same(&format!("{what}, variable {number}"), &mine, &theirs.to_device(&Device::Cpu).unwrap());
    }
}

#[test]
fn a_gpu_computes_what_the_cpu_does() {
    let (x, weight, bias) = (variable((5_000, 7), 1), variable((7, 18), 2), row(18, 3));
    agree("affine", &[x, weight, bias], |backend, of| backend.affine(&of[0], &of[1], &of[2], Activation::Gelu));
    let (x, gain, bias) = (variable((700, 19), 1), row(19, 2), row(19, 3));
    agree("layer norm", &[x.clone(), gain, bias], |backend, of| backend.layer_norm(&of[0], &of[1], &of[2]));
    agree("unit rows", std::slice::from_ref(&x), |backend, of| backend.unit_rows(&of[0]));
    let (queries, events) = (variable((4, 38), 6), variable((9, 19), 7));
    let spans: std::sync::Arc<[std::ops::Range<usize>]> = [0..3, 0..2, 3..3, 3..9].into();
    let attend = |backend: Backend, of: &[Var]| backend.absorbed_attention(&of[0], &of[1], &spans, 0.7);
    agree("absorbed attention", &[queries, events], attend);
    let settings = softmax(2_500, 37);
    let losses = |backend: Backend, of: &[Var]| backend.sampled_softmax(&of[0], &of[1], &settings)?.reshape((1, 1));
    agree("softmax", &[variable((2_500, 6), 1), variable((37, 6), 2)], losses);
    let layer = LayerShape { width: 12, feed_forward: 20, heads: 2, causal: true };
    let ends = [3, 3, 40, 41, 300, 301, 555, 560];
    for wanted in [vec![2, 39, 40, 299, 300, 554], (0..560).collect()] {
        let encoding = encoding(layer, 2, &ends, wanted, 0.2);
        let all = [variable((560, 12), 1), row(2 * layer.count(), 2)];
        agree("encoder", &all, |backend, of| backend.encode(&of[0], &of[1], encoding.clone()));
    }
}
