//! Calls that build something: plans, models, adapters, runs.

use std::time::Duration;

use oaif::Wait;
use oaif::unstable::data::rows::{Prompt, Text};
use oaif::unstable::generate::{GenerateOptions, Generator, SamplingParams};
use oaif::unstable::gpu::{Arena, Gpu, GpuOptions};
use oaif::unstable::judge::command::CommandJudge;
use oaif::unstable::judge::judge_model::JudgeModel;
use oaif::unstable::model::architecture::WeightSpec;
use oaif::unstable::model::lora::LoraTerm;
use oaif::unstable::model::names::Projection;
use oaif::unstable::model::stream::Capacity;
use oaif::unstable::model::{
    Adapter, FloatFormat, LoraConfig, LoraLayout, LoraTargets, Model, ModelConfig, Scorer, Weights,
};
use oaif::unstable::optim::{Optimiser, OptimiserKind};
use oaif::unstable::preference::PreferenceLoss;
use oaif::unstable::train::pair_step::PairStep;
use oaif::unstable::train::sft_step::SftStep;
use oaif::unstable::train::{AlignOptions, AlignRun, Policy, TrainOptions};

use crate::draws::{CONTEXT, Draws, known};
use crate::{Call, Doors, LOSS, call};

impl Doors {
    /// The device for measuring only, or sometimes the wrong one.
    fn dry_or_not(&self, draws: &mut Draws) -> (&Gpu, bool) {
        if draws.once_in(6) { (&self.gpu, false) } else { (&self.dry, true) }
    }

    pub fn new_generator(&self, draws: &mut Draws) -> Call {
        let p = [0.0, 0.5, 1.0];
        let no_p = [-0.1, 1.1, f32::NAN];
        let options = GenerateOptions::default()
            .sampling(
                SamplingParams::default()
                    .temperature(draws.mostly(&[0.0, 0.9], &[-1.0, 1e-9, f32::NAN, f32::INFINITY]))
                    .top_k(draws.of(&[0, 1, u32::MAX]))
                    .top_p(if draws.once_in(4) { draws.of(&no_p) } else { draws.of(&p) })
                    .min_p(if draws.once_in(4) { draws.of(&no_p) } else { draws.of(&p) }),
            )
            .max_new_tokens(draws.mostly(&[1, 4, 500, usize::MAX], &[0]))
            .max_prompt_tokens(draws.mostly(&[1, 12, 127], &[0, 128, usize::MAX]))
            .slots(draws.mostly(&[1, 4], &[0, usize::MAX, 1 << 40]))
            .samples_per_prompt(draws.mostly(&[1, 2, usize::MAX], &[0]))
            .eos(draws.ids(&[0, 1, 2]));
        let s = options.sampling;
        let share = |p: f32| (0.0..=1.0).contains(&p);
        let (gpu, right) = self.dry_or_not(draws);
        let valid = right
            && (s.temperature == 0.0 || s.temperature == 0.9)
            && share(s.top_p)
            && share(s.min_p)
            && options.max_new_tokens > 0
            && (1..CONTEXT).contains(&options.max_prompt_tokens)
            && (1..=4).contains(&options.slots)
            && options.samples_per_prompt > 0
            && (options.eos.is_empty() || known(&options.eos));
        let result = Generator::new(gpu, &self.dry_frozen, options.clone(), &Arena::new()).wait();
        call(("new generator", options, right), valid, result)
    }

    pub fn new_plans(&self, draws: &mut Draws) -> Call {
        let size = |draws: &mut Draws| draws.mostly(&[1, 2, 64], &[0, 1 << 31, 1 << 40, usize::MAX]);
        let capacity = Capacity { tokens: size(draws), targets: size(draws), sequences: size(draws) };
        let sizes = [capacity.tokens, capacity.targets, capacity.sequences];
        let (gpu, right) = self.dry_or_not(draws);
        let good = right && sizes.iter().all(|n| (1..=64).contains(n));
        let (arena, beta) = (Arena::new(), draws.mostly(&[0.1, 1.0], &[0.0, -0.1, f32::NAN, f32::INFINITY]));
        let trained = !draws.once_in(4);
        let model = if trained { &self.dry_trained } else { &self.dry_frozen };
        let preamble = draws.ids(&[1, 8, 127, 0, 128, 3000]);
        let what = ("new", capacity, beta, trained, right);
        match draws.below(4) {
            0 => call(what, good, Scorer::new(gpu, model, capacity, &arena).wait()),
            1 => {
                let valid = good && known(&preamble) && preamble.len() < CONTEXT;
                call((what, &preamble), valid, Scorer::after(gpu, model, &preamble, capacity, &arena).wait())
            }
            2 => call(what, good && trained, SftStep::new(gpu, model, capacity, false, &arena).wait()),
            _ => {
                let loss = draws.of(&[
                    PreferenceLoss::Dpo { beta },
                    PreferenceLoss::Ipo { beta, average_tokens: true },
                    PreferenceLoss::Slic { beta },
                ]);
                let valid = good && trained && beta > 0.0 && beta < f32::INFINITY;
                call((what, loss), valid, PairStep::new(gpu, model, loss, capacity, false, &arena).wait())
            }
        }
    }

    pub fn new_optimiser(&self, draws: &mut Draws) -> Call {
        let number = |draws: &mut Draws, good: f32| draws.mostly(&[good], &[-1.0, f32::NAN, f32::INFINITY]);
        let norm = number(draws, 1.0);
        let decay = number(draws, 0.01);
        let constants = [number(draws, 0.9), number(draws, 0.0), number(draws, 1e-8)];
        let (mut good, kind) = match draws.below(2) {
            0 => (true, OptimiserKind::Adafactor { weight_decay: decay }),
            _ => {
                let [beta1, beta2, epsilon] = constants;
                let good = constants == [0.9, 0.0, 1e-8];
                (good, OptimiserKind::AdamW { beta1, beta2, epsilon, weight_decay: decay })
            }
        };
        let trained = !draws.once_in(4);
        let (gpu, right) = self.dry_or_not(draws);
        good &= norm == 1.0 && decay == 0.01 && trained && right;
        let model = if trained { &self.dry_trained } else { &self.dry_frozen };
        let result = Optimiser::new(gpu, model.trained(), kind, norm, &Arena::new()).wait();
        call(("new optimiser", kind, norm, trained, right), good, result)
    }

    pub fn new_model(&self, draws: &mut Draws) -> Call {
        let sizes = [0, 1, 2, 3, 7, 1 << 31, usize::MAX];
        let good = ModelConfig::load(&self.dir).unwrap();
        let mut config = good.clone();
        // Changes that make the sizes too small, too large or inconsistent.
        let change = draws.below(15);
        let size = draws.of(&sizes);
        let a = &mut config.architecture;
        match change {
            0 => a.hidden = draws.of(&[0, 1 << 31, usize::MAX]),
            1 => a.feed_forward_size = draws.of(&[0, 1 << 31, usize::MAX]),
            2 => a.layers = draws.of(&[0, 1, 2_000_000_000, usize::MAX]),
            3 => a.heads = draws.of(&[0, 3, 1 << 31, usize::MAX]),
            4 => a.kv_heads = draws.of(&[0, 3, 5, usize::MAX]),
            5 => a.head_dim = size,
            6 => a.vocab = draws.of(&[0, 1 << 31, usize::MAX]),
            7 => a.context = draws.of(&[0, 1 << 31, usize::MAX]),
            8 => a.attention.ropes[0].theta = draws.of(&[0.0, -1.0, f64::NAN, f64::INFINITY]),
            9 => a.attention.layers[0].rope = Some(1),
            10 => a.attention.layers[0].window = Some(0),
            11 => a.attention.ropes[0].rotated = draws.of(&[0, 3, a.head_dim + 2, usize::MAX]),
            12 => a.attention.scale = draws.of(&[0.0, f32::NAN]),
            13 => a.logits.soft_cap = Some(draws.of(&[0.0, -1.0, f32::INFINITY])),
            _ => a.norm.epsilon = draws.of(&[-1.0, f32::NAN, f32::INFINITY]),
        }
        let config = if draws.once_in(4) { good.clone() } else { config };
        let valid = config == good;
        match draws.below(2) {
            0 => {
                call(("random model", change, size), valid, Model::random(&self.dry, config, true, 1).wait())
            }
            // The right weights with one exception, or on another device.
            _ => {
                let specs: Vec<WeightSpec> =
                    self.frozen.base().iter().map(|w| WeightSpec::new(&w.name, w.shape.clone())).collect();
                let mut given = specs.clone();
                let fault = draws.of(&[0, 0, 1, 2, 3]);
                match fault {
                    1 => drop(given.pop()),
                    2 => given[0].shape = draws.of(&[vec![96, 31], vec![95, 32], vec![32], vec![96, 32, 1]]),
                    3 => given[0].shape = draws.of(&[vec![], vec![0], vec![0, 4], vec![usize::MAX, 2]]),
                    _ => {}
                }
                let (gpu, right) = self.dry_or_not(draws);
                let weights = Weights::frozen(&self.dry, &given, FloatFormat::F32.into());
                let result = weights.and_then(|weights| Model::new(gpu, config, weights));
                call(("new model", change, size, fault, right), valid && fault == 0 && right, result)
            }
        }
    }

    pub fn new_adapter(&self, draws: &mut Draws) -> Call {
        let targets = LoraTargets::AllLinear;
        let none = [LoraTargets::Named(vec![]), LoraTargets::Named(vec!["c_attn".into()])];
        let config = LoraConfig::new(1)
            .rank(draws.mostly(&[1, 2], &[0, 1 << 31, i64::MAX as usize, usize::MAX]))
            .alpha(draws.mostly(&[4.0], &[f32::NAN, f32::INFINITY]))
            .rank_stabilised(draws.once_in(2))
            .targets(draws.mostly(std::slice::from_ref(&targets), &none));
        let good = [1, 2].contains(&config.rank) && config.alpha == 4.0 && config.targets == targets;
        match draws.below(2) {
            0 => call(("add", &config), good, self.dry_frozen.add_adapter(config.clone(), 1)),
            _ => {
                let of = LoraConfig::new(2).targets(targets);
                let architecture = self.frozen.architecture();
                let specs = of.layout(architecture).unwrap().weights(architecture);
                let (gpu, right) = self.dry_or_not(draws);
                let weights = Weights::trained(gpu, &specs).unwrap();
                let LoraConfig { rank, alpha, .. } = config;
                let layers = draws.mostly(&[architecture.layers], &[architecture.layers + 1]);
                let term = |layer, &projection| LoraTerm { layer, projection, rank, alpha };
                let own: Vec<Projection> = architecture.projections().collect();
                let chosen = draws.mostly(&[own], &[vec![], vec![Projection::QueryKeyValue]]);
                let terms = (0..layers).flat_map(|layer| chosen.iter().map(move |p| term(layer, p)));
                let layout = LoraLayout::new(terms.collect(), architecture, false);
                let all = chosen.len() == architecture.projections().count();
                let good = [1, 2].contains(&config.rank) && config.alpha == 4.0 && all;
                let valid = good && rank == 2 && right && layers == architecture.layers;
                let result = self.dry_frozen.with_adapter(Adapter { layout, weights, warnings: Vec::new() });
                call(("with", &config, right), valid, result)
            }
        }
    }

    pub fn new_run(&self, draws: &mut Draws) -> Call {
        let count = |draws: &mut Draws| draws.mostly(&[1, 2], &[0, usize::MAX]);
        let some = |draws: &mut Draws| draws.mostly(&[None, Some(9)], &[Some(0)]);
        let (mut train, mut options) =
            (TrainOptions::default().output_dir(self.temp.path()), AlignOptions::new(LOSS));
        (train.batch_size, options.max_new_tokens) = (2, 3);
        let mut beta = 0.1;
        for _ in 0..draws.of(&[0, 1, 1, 2]) {
            match draws.below(17) {
                0 => train.batch_size = count(draws),
                1 => train.accumulation = count(draws),
                2 => train.max_steps = some(draws),
                3 => train.save_steps = some(draws),
                4 => train.save_total_limit = some(draws),
                5 => train.max_prompt_length = some(draws),
                6 => {
                    train.learning_rate = draws.mostly(&[0.0, 1e-3], &[-1.0, f64::NAN, f64::INFINITY, 1e300])
                }
                7 => train.epochs = draws.mostly(&[0.5, 1e6], &[0.0, -1.0, f64::NAN, f64::INFINITY]),
                8 => train.max_grad_norm = draws.of(&[0.0, 1.0, -1.0, f32::NAN, f32::INFINITY]),
                9 => options.num_samples = draws.of(&[2, 3, 0, 1, usize::MAX]),
                10 => options.max_new_tokens = draws.of(&[1, 3, 0, 128, usize::MAX]),
                11 => options.slots = some(draws),
                12 => options.max_invalid_ratio = draws.of(&[0.0, 1.0, -0.1, 1.1, f64::NAN]),
                13 => options.async_level = draws.of(&[0, 1, 64, 65, usize::MAX]),
                15 => options.active = draws.of(&[1, 2, 0, usize::MAX]),
                14 => options.min_confidence = draws.of(&[0.5, 1.0, 0.4, 1.1, f32::NAN]),
                _ => beta = draws.mostly(&[0.2], &[0.0, f32::NAN]),
            }
        }
        options.loss = PreferenceLoss::Ipo { beta, average_tokens: false }.into();
        let few = |n: usize| (1..=2).contains(&n);
        let counts = [
            train.max_steps,
            train.save_steps,
            train.save_total_limit,
            train.max_prompt_length,
            options.slots,
        ];
        let valid = few(train.batch_size)
            && few(train.accumulation)
            && !counts.contains(&Some(0))
            && (0.0..1.0).contains(&train.learning_rate)
            && train.epochs > 0.0
            && train.epochs < 1e300
            && (0.0..2.0).contains(&train.max_grad_norm)
            && [2, 3].contains(&options.num_samples)
            && [1, 3].contains(&options.max_new_tokens)
            && (0.0..=1.0).contains(&options.max_invalid_ratio)
            && options.async_level <= 64
            && [1, 2].contains(&options.active)
            && (0.5..=1.0).contains(&options.min_confidence)
            && beta > 0.0;
        let prompt = Prompt { prompt: Text::Plain("the fox".into()), reference: None, place: 1.into() };
        let policy = Policy::with_model(self.dry_trained.clone(), &self.dir).unwrap();
        let what = format!("{train:?} {options:?}");
        let result = AlignRun::new(policy, &[prompt], &train, &options).wait().map(drop);
        Call { what, valid, result }
    }

    pub fn small_things(&self, draws: &mut Draws) -> Call {
        match draws.below(5) {
            0 => {
                let length = draws.mostly(&[None, Some(1), Some(64), Some(usize::MAX)], &[Some(0)]);
                let result = JudgeModel::of_model(&self.dry_frozen, &self.dir, length, &Arena::new()).wait();
                call(("judge", length), length != Some(0), result)
            }
            1 => {
                let beta = draws.mostly(&[None, Some(0.1)], &[Some(0.0), Some(-1.0), Some(f32::NAN)]);
                let valid = beta.is_none_or(|b| b > 0.0);
                call(("loss", beta), valid, PreferenceLoss::parse("dpo", beta, false))
            }
            2 => {
                let options = GpuOptions::default()
                    .submit_ms(draws.of(&[0.0, -1.0, f64::NAN]))
                    .max_binding_bytes(draws.of(&[None, Some(0)]));
                call(("open", options.submit_ms), false, Gpu::open(&options).wait())
            }
            3 => {
                let command = draws.of(&["", " ", "\n\t", "true"]);
                let result = CommandJudge::new(command, Duration::MAX);
                call(("command", command), command == "true", result)
            }
            // Sizes of trees that cannot be read must still be computed without a panic.
            _ => {
                let trees = [draws.tree(&[0, 1, 2, 3])];
                let size = Capacity::of(&trees);
                assert!(size.tokens <= 3000 + 3 * 140 && trees[0].length() >= trees[0].prompt.len());
                call(("sizes", size), true, Ok(()))
            }
        }
    }
}
