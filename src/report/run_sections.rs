//! The sections of a run's page: curves and bars of its metrics.

use super::bars::Bars;
use super::charts::{self, Chart};
use super::plot::{Plot, Series, smoothing_window};
use super::run::{Kind, Run};
use super::scale::{Estimate, Unit, number};
use super::section::Section;
use crate::train::report::PHASES;

impl Run {
    /// A chart with the curve of this run.
    fn chart(&self, chart: &Chart) -> Plot {
        chart.plot(self.done()).series(chart.curve(self, chart.title))
    }

    /// A chart of two metrics, of the chosen and the rejected responses.
    fn both(&self, chart: &Chart) -> Plot {
        ["chosen", "rejected"].into_iter().fold(chart.plot(self.done()), |plot, which| {
            let metric = format!("{}/{which}", chart.metric);
            plot.series(self.metrics.curve(which, self.metrics.column(&metric)))
        })
    }

    pub(super) fn learning(&self) -> Section {
        let window = smoothing_window(self.metrics.steps.len());
        let mut text =
            "Figures at the top that are compared with \"the first steps\" are means over the last and the \
                        first tenth of the steps."
                .to_owned();
        if window > 1 {
            text += &format!(
                " A dot is one step, a curve is the running mean over {} steps. An arrow at the edge marks a step outside of \
                 the chart.",
                number(window as f64)
            );
        }
        let rewards = if self.kind() == Kind::Reward { charts::REWARD_SCORES } else { charts::REWARDS };
        let section = Section::new("Learning").text(text);
        let section = match self.loss_chart() {
            Some(loss) => section.plot(self.chart(loss)),
            None => section
                .plot(self.chart(&charts::SCORE))
                .plot(self.chart(&charts::SCORE_SPREAD))
                .plot(self.chart(&charts::EQUAL_SCORES)),
        };
        let learning = section
            .plot(self.chart(&charts::MARGIN))
            .plot(self.chart(&charts::ACCURACY))
            .plot(self.both(&rewards))
            .plot(self.chart(self.kl_chart()))
            .plot(self.both(&charts::LOG_PROBABILITIES));
        if self.kind() == Kind::Align { learning } else { learning.plot(self.chart(&charts::ENTROPY)) }
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

    /// Loss and accuracy of held-out pairs.
    pub(super) fn held_out_pairs(&self) -> Section {
        let section = Section::new("Held-out pairs");
        let Some(pairs) = self.metrics.last("eval/pairs") else { return section };
        section
            .text(format!("{} preference pairs that the run does not train on.", number(pairs)))
            .plot(self.chart(&charts::HELD_OUT_LOSS))
            .plot(self.chart(&charts::HELD_OUT_ACCURACY))
            .plot(self.chart(&charts::HELD_OUT_MARGIN))
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
        let start = self.before_training(charts::WIN_RATE.metric).map(|rate| (0.0, rate.into()));
        let rates = Series::band("win rate", start.into_iter().chain(points));
        Section::new("Held-out prompts")
            .text(format!(
                "The policy's responses to {} held-out prompts against those of the starting model, compared by the run's own \
                 judge. A tie is half a win; the band is the 95 % interval. Use oaif eval with another judge to see whether \
                 the result holds.",
                number(prompts)
            ))
            .plot(charts::WIN_RATE.plot(self.done()).series(rates))
            .plot(self.chart(&charts::HELD_OUT_LENGTH))
            .plot(self.chart(&charts::HELD_OUT_KL))
    }

    pub(super) fn responses(&self) -> Section {
        let section = Section::new("Responses");
        // Offline responses come from the dataset, so training does not change them.
        if self.kind() != Kind::Align {
            return section;
        }
        section
            .plot(self.chart(&charts::LENGTH))
            .plot(self.chart(&charts::ENDED))
            .plot(self.chart(&charts::ENTROPY))
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
            Plot::new("Without a preference")
                .labels("step", "share of the pairs")
                .over(0.0, self.done())
                .unit(Unit::Share)
                .from_zero(),
            |plot, (metric, name)| plot.series(m.curve(name, share(metric).into_iter())),
        );
        // NaN where no pair of a step was judged in both orders.
        let flips = m.column(charts::ORDER_FLIPS.metric).zip(m.column("judge/both_orders"));
        let flips = m.curve(charts::ORDER_FLIPS.title, flips.map(|(flips, both)| flips / both));
        let section = Section::new("Judge")
            .text(if self.pairs.total > 0 { self.pairs.summary() } else { String::new() })
            .plot(charts::ORDER_FLIPS.plot(self.done()).series(flips))
            .plot(unusable)
            .plot(self.chart(&charts::FIRST_PREFERRED));
        // With ratings, this metric is their mean.
        if self.learns_from_scores() { section } else { section.plot(self.chart(&charts::CERTAINTY)) }
    }

    pub(super) fn optimiser(&self) -> Section {
        Section::new("Optimiser")
            .plot(self.chart(&charts::LEARNING_RATE))
            .plot(self.chart(&charts::GRADIENT_NORM))
    }

    pub(super) fn time(&self) -> Section {
        let m = &self.metrics.without_first();
        let note = match m.steps.len() < self.metrics.steps.len() {
            true => "The first step, which compiles the kernels, is left out.",
            false => "",
        };
        let plot = |chart: &Chart, scale: f64| {
            let values = m.column(chart.metric).map(|value| scale * value);
            chart.plot(self.done()).series(m.curve(chart.title, values))
        };
        let phases = PHASES.iter().fold(
            Bars::new("Time by phase").label("seconds per step: mean, 10th to 90th percentile"),
            |bars, phase| {
                let mut times = m.values(&format!("time/{phase}_ms"));
                if times.is_empty() {
                    return bars;
                }
                times.sort_by(f64::total_cmp);
                let at = |q: f64| 1e-3 * times[((times.len() - 1) as f64 * q).round() as usize];
                let mean = 1e-3 * times.iter().sum::<f64>() / times.len() as f64;
                bars.group(*phase, [Estimate::new(mean, at(0.1), at(0.9))])
            },
        );
        Section::new("Time")
            .text(note)
            .plot(plot(&charts::STEP_TIME, 1e-3))
            .bars(phases)
            .plot(plot(&charts::SPEED, 1.0))
    }
}
