//! meganeura, built from its own Llama-shaped model.

use meganeura::models::smollm2::{SmolLM2Config, build_training_graph};
use meganeura::{Session, SessionConfig};

use crate::case::{Case, EMBEDDING, EPSILON, THETA, transposed};
use crate::engine::{Engine, Result, norm};

pub struct Meganeura {
    session: Session,
}

impl Meganeura {
    pub fn new(case: &Case) -> Result<Meganeura> {
        if case.sequences != 1 {
            return Err("meganeura's model takes one sequence".into());
        }
        let config = SmolLM2Config {
            vocab_size: case.vocab,
            hidden_size: case.hidden,
            num_hidden_layers: case.layers,
            num_attention_heads: case.heads as u32,
            num_key_value_heads: case.heads as u32,
            intermediate_size: case.feed_forward,
            rms_norm_eps: EPSILON as f32,
            rope_theta: THETA as f32,
            tie_word_embeddings: true,
        };
        let graph = build_training_graph(&config, case.length);
        let (mut session, _) =
            meganeura::build(&graph, SessionConfig { tune: true, ..SessionConfig::default() });
        for (spec, values) in case.weights() {
            // meganeura stores matrices as (inputs, outputs).
            let values = match spec.shape[..] {
                [rows, cols] if spec.name != EMBEDDING => transposed(&values, rows, cols),
                _ => values,
            };
            session.set_parameter(&spec.name, &values);
        }
        let ids = &case.ids()[0];
        session.set_input_u32("token_ids", &ids[..case.length]);
        let mut labels = vec![0.0; case.length * case.vocab];
        for (row, id) in ids[1..].iter().enumerate() {
            labels[row * case.vocab + *id as usize] = 1.0;
        }
        session.set_input("labels", &labels);
        Ok(Meganeura { session })
    }
}

impl Engine for Meganeura {
    fn gpu(&self) -> String {
        self.session.device_information().device_name.clone()
    }

    fn step(&mut self) -> Result<f64> {
        // Without an optimiser, a step ends with the gradients.
        self.session.step();
        self.session.wait();
        Ok(self.session.read_loss() as f64)
    }

    fn gradient_norms(&mut self) -> Result<Vec<(Vec<String>, f64)>> {
        let names = self.session.param_names().into_iter().filter(|n| self.session.has_param_grad(n));
        let gradient = |name: &str| {
            let mut values = vec![0.0; self.session.param_size(name).ok_or("no such parameter")?];
            self.session.read_param_grad(name, &mut values);
            // The optimiser joins matrices with the same input, and their names with a plus sign.
            Ok((name.split('+').map(str::to_owned).collect(), norm(&values)))
        };
        names.map(gradient).collect()
    }
}
