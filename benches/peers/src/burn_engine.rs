//! burn with its wgpu backend, fusion and autotuning, built from its own modules.

use std::collections::HashMap;

use burn::module::Param;
use burn::nn::loss::{CrossEntropyLoss, CrossEntropyLossConfig};
use burn::nn::{Embedding, Linear, RmsNorm};
use burn::tensor::module::linear;
use burn::tensor::{Bool, Device, DeviceKind, Gradients, Int, Tensor, TensorData, activation};

use crate::case::{Case, EMBEDDING, EPSILON, THETA, transposed};
use crate::engine::{Engine, Result, norm};

pub struct Burn {
    device: Device,
    case: Case,
    embedding: Embedding,
    linears: HashMap<String, Linear>,
    norms: HashMap<String, RmsNorm>,
    /// Cosines of the angles of every position, (1, 1, N / S, D / 2).
    cos: Tensor<4>,
    sin: Tensor<4>,
    /// True where a key comes after the query, (1, 1, N / S, N / S).
    later: Tensor<4, Bool>,
    loss: CrossEntropyLoss,
    inputs: Tensor<2, Int>,
    targets: Tensor<1, Int>,
    gradients: Option<Gradients>,
}

impl Burn {
    pub fn new(case: &Case) -> Result<Burn> {
        let device = Device::wgpu(DeviceKind::DefaultDevice).autodiff();
        let (mut embedding, mut linears, mut norms) = (None, HashMap::new(), HashMap::new());
        for (spec, values) in case.weights() {
            let matrix = |values, rows: usize, cols: usize| {
                Param::<Tensor<2>>::from_data(TensorData::new(values, [rows, cols]), &device)
            };
            match spec.shape[..] {
                [size] => {
                    let gamma = Param::from_data(TensorData::new(values, [size]), &device);
                    norms.insert(spec.name, RmsNorm { gamma, epsilon: EPSILON });
                }
                [rows, cols] if spec.name == EMBEDDING => {
                    embedding = Some(Embedding { weight: matrix(values, rows, cols) });
                }
                [rows, cols] => {
                    let values = transposed(&values, rows, cols);
                    let weight = matrix(values, cols, rows);
                    linears.insert(spec.name, Linear { weight, bias: None });
                }
                _ => unreachable!(),
            }
        }
        let ids = case.ids();
        let pick = |from: usize| -> Vec<i32> {
            ids.iter().flat_map(|ids| ids[from..from + case.length].iter().map(|id| *id as i32)).collect()
        };
        let inputs = TensorData::new(pick(0), [case.sequences, case.length]);
        let targets = TensorData::new(pick(1), [case.tokens()]);
        let half = case.head_dim() / 2;
        let angles = |f: fn(f64) -> f64| {
            let angle = |p: usize, j: usize| p as f64 * THETA.powf(-(j as f64) / half as f64);
            let table: Vec<f32> =
                (0..case.length).flat_map(|p| (0..half).map(move |j| f(angle(p, j)) as f32)).collect();
            Tensor::<4>::from_data(TensorData::new(table, [1, 1, case.length, half]), &device)
        };
        Ok(Burn {
            embedding: embedding.expect("a model has an embedding"),
            linears,
            norms,
            cos: angles(f64::cos),
            sin: angles(f64::sin),
            later: Tensor::<2, Bool>::tril_mask([case.length, case.length], 0, &device).unsqueeze(),
            loss: CrossEntropyLossConfig::new().init(&device),
            inputs: Tensor::from_data(inputs, &device),
            targets: Tensor::from_data(targets, &device),
            gradients: None,
            device,
            case: *case,
        })
    }

    /// Rotates pairs half a head apart. With burn's own `RotaryEncoding`, which multiplies every pair by a matrix, a
    /// step of the small model takes three times as long on lavapipe.
    fn rotary(&self, x: Tensor<4>) -> Tensor<4> {
        let half = self.case.head_dim() / 2;
        let (a, b) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
        let (cos, sin) = (self.cos.clone(), self.sin.clone());
        let turned = vec![a.clone() * cos.clone() - b.clone() * sin.clone(), a * sin + b * cos];
        Tensor::cat(turned, 3)
    }

    /// (S, H, N / S, D). In training, burn's own `attention` does the same operations and more.
    fn attention(&self, query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<4> {
        let scores = query.matmul(key.swap_dims(2, 3)) / (self.case.head_dim() as f64).sqrt();
        let scores = scores.mask_fill(self.later.clone(), f32::NEG_INFINITY);
        activation::softmax(scores, 3).matmul(value)
    }

    /// The mean cross-entropy.
    fn forward(&self) -> Tensor<1> {
        let Case { sequences, length, hidden, heads, .. } = self.case;
        let split = |x: Tensor<3>| x.reshape([sequences, length, heads, hidden / heads]).swap_dims(1, 2);
        let mut x = self.embedding.forward(self.inputs.clone());
        for layer in 0..self.case.layers {
            let linear = |name: &str, x: Tensor<3>| {
                self.linears[&format!("model.layers.{layer}.{name}.weight")].forward(x)
            };
            let normed = |name: &str, x: Tensor<3>| {
                self.norms[&format!("model.layers.{layer}.{name}.weight")].forward(x)
            };
            let n = normed("input_layernorm", x.clone());
            let q = self.rotary(split(linear("self_attn.q_proj", n.clone())));
            let k = self.rotary(split(linear("self_attn.k_proj", n.clone())));
            let v = split(linear("self_attn.v_proj", n));
            let mixed = self.attention(q, k, v).swap_dims(1, 2).reshape([sequences, length, hidden]);
            x = x + linear("self_attn.o_proj", mixed);
            let n = normed("post_attention_layernorm", x.clone());
            let inner = activation::silu(linear("mlp.gate_proj", n.clone())) * linear("mlp.up_proj", n);
            x = x + linear("mlp.down_proj", inner);
        }
        let x = self.norms["model.norm.weight"].forward(x).reshape([self.case.tokens(), hidden]);
        let logits = linear(x, self.embedding.weight.val().transpose(), None);
        self.loss.forward(logits, self.targets.clone())
    }
}

impl Engine for Burn {
    fn gpu(&self) -> String {
        self.device.identity().map(|i| i.name).unwrap_or_default()
    }

    fn step(&mut self) -> Result<f64> {
        self.gradients = None;
        let loss = self.forward();
        // Kept until the work is done, so that none of it can be skipped.
        self.gradients = Some(loss.backward());
        self.device.sync()?;
        Ok(loss.into_scalar::<f32>() as f64)
    }

    fn gradient_norms(&mut self) -> Result<Vec<(Vec<String>, f64)>> {
        let gradients = self.gradients.as_ref().ok_or("no step has run")?;
        let matrices = self.linears.iter().map(|(name, linear)| (name.as_str(), &linear.weight));
        let matrices = matrices.chain([(EMBEDDING, &self.embedding.weight)]);
        let matrices = matrices.map(|(name, w)| (name, w.val().grad(gradients).map(Tensor::into_data)));
        let vectors = self.norms.iter().map(|(name, norm)| (name.as_str(), &norm.gamma));
        let vectors = vectors.map(|(name, w)| (name, w.val().grad(gradients).map(Tensor::into_data)));
        let present = matrices.chain(vectors).filter_map(|(name, data)| Some((name, data?)));
        present.map(|(name, data)| Ok((vec![name.to_owned()], norm(&data.try_to_vec::<f32>()?)))).collect()
    }
}
