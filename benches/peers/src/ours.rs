//! oaif.

use oaif::Wait;
use oaif::unstable::data::packing::Tree;
use oaif::unstable::gpu::{Arena, Gpu, GpuOptions};
use oaif::unstable::model::stream::Capacity;
use oaif::unstable::model::{Model, Weights};
use oaif::unstable::train::sft_step::SftStep;

use crate::case::Case;
use crate::engine::{Engine, Result, norm};

pub struct Ours {
    gpu: Gpu,
    model: Model,
    step: SftStep,
    trees: Vec<Tree>,
}

impl Ours {
    pub fn new(case: &Case) -> Result<Ours> {
        let gpu = Gpu::open(&GpuOptions::default()).wait()?;
        let config = case.config();
        let weights = Weights::trained(&gpu, &config.architecture.weights())?;
        for (spec, values) in case.weights() {
            weights.upload(&spec.name, &values)?;
        }
        let model = Model::new(&gpu, config, weights)?;
        let trees = case.trees();
        let step = SftStep::new(&gpu, &model, Capacity::of(&trees), false, &Arena::new()).wait()?;
        Ok(Ours { gpu, model, step, trees })
    }
}

impl Engine for Ours {
    fn gpu(&self) -> String {
        self.gpu.summary().name.clone()
    }

    fn step(&mut self) -> Result<f64> {
        let targets: usize = self.trees.iter().map(|t| t.responses[0].len()).sum();
        let (sums, _) = self.step.run(&self.trees, 1.0 / targets as f32).wait()?;
        Ok(sums.nll / sums.tokens as f64)
    }

    fn gradient_norms(&mut self) -> Result<Vec<(Vec<String>, f64)>> {
        let base = self.model.base();
        base.iter().map(|w| Ok((vec![w.name.clone()], norm(&base.download_gradient(w).wait()?)))).collect()
    }
}
