//! The sections of a run's page: curves and bars of its metrics.

use super::bars::Bars;
use super::plot::{Plot, Series, smoothing_window};
use super::run::{Kind, Run};
use super::scale::{Estimate, Unit, number};
use super::section::Section;

/// The phases of a step in order: the middle of the metric's name (`time/…_ms`), and the displayed name.
const PHASES: [(&str, &str); 6] = [
    ("sampling", "sampling"),
    ("judging", "judging"),
    ("reference", "reference"),
    ("forward", "forward"),
    ("backward", "backward"),
    ("update", "update"),
];

impl Run {
    /// A plot over the steps.
    fn plot(&self, title: &str, label: &str) -> Plot {
        Plot::new(title).labels("step", label).over(0.0, self.done())
    }

    /// A plot of one metric.
    fn metric(&self, name: &str, title: &str, label: &str) -> Plot {
        self.plot(title, label).series(self.metrics.curve(title, self.metrics.column(name)))
    }

    /// A plot of two metrics of the chosen and the rejected responses.
    fn both(&self, name: &str, title: &str, label: &str) -> Plot {
        ["chosen", "rejected"].into_iter().fold(self.plot(title, label), |plot, which| {
            plot.series(self.metrics.curve(which, self.metrics.column(&format!("{name}/{which}"))))
        })
    }

    pub(super) fn learning(&self) -> Section {
        let loss = if self.kind() == Kind::Sft { "nats per token" } else { "mean over the pairs" };
        let window = smoothing_window(self.metrics.steps.len());
        let mut text = "The figures at the top are means over the last tenth of the steps; \"in the first steps\" is the \
                        mean over the first tenth."
            .to_owned();
        if window > 1 {
            text += &format!(
                " A dot is one step, a curve is the running mean over {} steps. An arrow at the edge marks a step outside of \
                 the chart.",
                number(window as f64)
            );
        }
        let reward = match self.kind() {
            Kind::Reward => "score of a response, mean",
            _ => "β (log π − log π₀) of a response, mean",
        };
        let (kl, kl_label) = self.kl();
        let accuracy =
            self.metric("rewards/accuracies", "Reward accuracy", "share of the pairs with a margin above 0");
        let section = Section::new("Learning").text(text);
        let section = match self.learns_from_scores() {
            true => section
                .plot(self.metric("reward", "Score", "of a response, mean"))
                .plot(self.metric("reward_std", "Spread of the scores", "standard deviation").from_zero())
                .plot(
                    self.metric(
                        "frac_reward_zero_std",
                        "Equal scores",
                        "share of the prompts whose responses all score the same",
                    )
                    .unit(Unit::Share)
                    .from_zero(),
                ),
            false => section.plot(self.metric("loss", "Loss", loss)),
        };
        let learning = section
            .plot(self.metric("rewards/margins", "Reward margin", "chosen minus rejected, mean").level(0.0))
            .plot(accuracy.unit(Unit::Share).level(0.5))
            .plot(self.both("rewards", "Rewards", reward))
            .plot(self.metric("objective/kl", kl, kl_label).level(0.0))
            .plot(self.both("logps", "Log-probabilities", "log π of a response, mean, nats"));
        if self.kind() == Kind::Align { learning } else { learning.plot(self.entropy()) }
    }

    fn entropy(&self) -> Plot {
        self.metric("objective/entropy", "Entropy", "of the next token, nats")
    }

    /// The steps that have a metric, with its values.
    pub(super) fn evaluated(&self, name: &str) -> impl Iterator<Item = (f64, f64)> {
        self.metrics
            .steps
            .iter()
            .copied()
            .zip(self.metrics.column(name))
            .filter(|(_, value)| value.is_finite())
    }

    /// The value of a metric on held-out prompts before the first step, when the policy is the starting model.
    pub(super) fn before_training(&self, metric: &str) -> Option<f64> {
        match metric {
            "eval/win_rate" => Some(0.5),
            "eval/kl" => Some(0.0),
            "eval/mean_length" => self.metrics.last("eval/starting_length"),
            _ => None,
        }
    }

    /// The curve of a metric over the steps that have it.
    fn known(&self, label: &str, name: &str) -> Series {
        Series::line(label, self.evaluated(name))
    }

    /// Loss and accuracy of held-out pairs.
    pub(super) fn held_out_pairs(&self) -> Section {
        let section = Section::new("Held-out pairs");
        let Some(pairs) = self.metrics.last("eval/pairs") else { return section };
        let accuracy =
            self.plot("Reward accuracy", "share of the pairs with a margin above 0").unit(Unit::Share);
        section
            .text(format!("{} preference pairs that the run does not train on.", number(pairs)))
            .plot(self.plot("Loss", "mean over the pairs").series(self.known("loss", "eval/loss")))
            .plot(accuracy.level(0.5).series(self.known("accuracy", "eval/rewards/accuracies")))
            .plot(
                self.plot("Reward margin", "chosen minus rejected, mean")
                    .level(0.0)
                    .series(self.known("margin", "eval/rewards/margins")),
            )
    }

    /// The policy on held-out prompts.
    pub(super) fn evaluation(&self) -> Section {
        let m = &self.metrics;
        let [rate, low, high] =
            ["eval/win_rate", "eval/win_rate_low", "eval/win_rate_high"].map(|name| m.column(name));
        let estimates = rate.zip(low.zip(high)).map(|(rate, (low, high))| Estimate::new(rate, low, high));
        let points =
            m.steps.iter().copied().zip(estimates).filter(|(_, estimate)| estimate.value.is_finite());
        let Some(prompts) = m.last("eval/prompts") else { return Section::new("Held-out prompts") };
        let start = |metric: &str| self.before_training(metric).map(|value| (0.0, value)).into_iter();
        let rates = start("eval/win_rate").map(|(step, rate)| (step, rate.into())).chain(points);
        let over_steps =
            |name: &str, metric: &str| Series::line(name, start(metric).chain(self.evaluated(metric)));
        let (length, kl) = (over_steps("length", "eval/mean_length"), over_steps("KL", "eval/kl"));
        Section::new("Held-out prompts")
            .text(format!(
                "The policy's responses to {} held-out prompts against those of the starting model, compared by the run's own \
                 judge. A tie is half a win. Use oaif eval with another judge to see whether the result holds.",
                number(prompts)
            ))
            .plot(
                self.plot("Win rate against the starting model", "with its 95 % interval")
                    .unit(Unit::Share)
                    .level(0.5)
                    .series(Series::band("win rate", rates)),
            )
            .plot(self.plot("Length of the responses", "tokens, mean").from_zero().series(length))
            .plot(self.plot("KL to the starting model", "mean of log π − log π₀ of a response, nats").level(0.0).series(kl))
    }

    pub(super) fn responses(&self) -> Section {
        let section = Section::new("Responses");
        // Offline responses come from the dataset, so training does not change them.
        if self.kind() != Kind::Align {
            return section;
        }
        let ended = self.metric("val/contain_eos_token", "Ended by themselves", "share of the responses");
        section
            .plot(self.metric("completions/mean_length", "Length", "tokens, mean").from_zero())
            .plot(ended.unit(Unit::Share).from_zero())
            .plot(self.entropy())
    }

    pub(super) fn judge(&self) -> Section {
        let m = &self.metrics;
        let share = |part: &str| {
            let both = m.column(part).zip(m.column("judge/judged")).zip(m.column("judge/identical"));
            // Pairs of identical responses are not judged, so `judge/judged` does not include them.
            let identical = part == "judge/identical";
            both.map(move |((part, judged), same)| part / if identical { judged + same } else { judged })
                .collect::<Vec<f64>>()
        };
        let unusable = [
            ("judge/tie", "ties"),
            ("judge/invalid", "unusable verdicts"),
            ("judge/identical", "identical responses"),
        ]
        .into_iter()
        .filter(|(metric, _)| m.column(metric).any(|v| v > 0.0))
        .fold(
            self.plot("Without a preference", "share of the pairs").unit(Unit::Share).from_zero(),
            |plot, (metric, name)| plot.series(m.curve(name, share(metric).into_iter())),
        );
        let mut flips = self.plot("Order flips", "share of the pairs whose two orders disagree");
        if self.pairs.both_orders > 0 {
            flips = flips.series(m.curve("order flips", share("judge/order_flip").into_iter()));
        }
        let first =
            self.metric("judge/first", "Response 1 preferred", "share of the pairs with a preference");
        let certainty =
            self.metric("objective/scores", "Certainty", "judge's probability for the chosen response");
        let section = Section::new("Judge")
            .text(if self.pairs.total > 0 { self.pairs.summary() } else { String::new() })
            .plot(flips.unit(Unit::Share).from_zero())
            .plot(unusable)
            .plot(first.unit(Unit::Share).level(0.5));
        // With ratings, this metric is their mean.
        if self.learns_from_scores() { section } else { section.plot(certainty.level(0.5)) }
    }

    pub(super) fn optimiser(&self) -> Section {
        let m = &self.metrics;
        let rate = Series::line("learning rate", m.steps.iter().copied().zip(m.column("learning_rate")));
        Section::new("Optimiser")
            .plot(self.plot("Learning rate", "").series(rate).from_zero())
            .plot(self.metric("grad_norm", "Gradient norm", "before clipping").from_zero())
    }

    pub(super) fn time(&self) -> Section {
        let m = &self.metrics.without_first();
        let note = match m.steps.len() < self.metrics.steps.len() {
            true => "The first step, which compiles the kernels, is left out.",
            false => "",
        };
        let seconds = m.column("time/step_ms").map(|ms| ms * 1e-3);
        let step = self.plot("Time of a step", "seconds").series(m.curve("time", seconds)).from_zero();
        let speed = m.curve("Speed", m.column("time/tokens_per_second"));
        let speed = self.plot("Speed", "tokens per second, sampled and trained on").series(speed);
        let phases = PHASES.iter().fold(
            Bars::new("Time by phase").label("seconds per step: mean, 10th to 90th percentile"),
            |bars, (phase, name)| {
                let mut times = m.values(&format!("time/{phase}_ms"));
                if times.is_empty() {
                    return bars;
                }
                times.sort_by(f64::total_cmp);
                let at = |q: f64| 1e-3 * times[((times.len() - 1) as f64 * q).round() as usize];
                let mean = 1e-3 * times.iter().sum::<f64>() / times.len() as f64;
                bars.group(*name, [Estimate::new(mean, at(0.1), at(0.9))])
            },
        );
        Section::new("Time").text(note).plot(step).bars(phases).plot(speed.from_zero())
    }
}
