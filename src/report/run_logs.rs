//! The logs of a training run: metrics by column, and counts and a sample of the pairs.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;

use serde_json::Value;

use super::plot::Series;
use super::scale::{Unit, number};
use super::section::{Sample, Section};
use crate::error::{Error, Result};
use crate::judge::orders_disagree;
use crate::numbers::evenly;
use crate::train::run_dir::METRICS;

/// The number of judged pairs that a report shows.
const SHOWN: usize = 12;

/// Calls `each` for the objects in the lines of `path`. Other lines are skipped; returns their number, without a last line
/// that is being written. `None` if the file does not exist.
pub(super) fn for_each_row(path: &Path, mut each: impl FnMut(Value)) -> Result<Option<usize>> {
    let mut log = match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        opened => BufReader::new(opened.map_err(Error::io("read", path))?),
    };
    let (mut line, mut skipped) = (Vec::new(), 0);
    while log.read_until(b'\n', &mut line).map_err(Error::io("read", path))? > 0 {
        match serde_json::from_slice(&line) {
            Ok(row @ Value::Object(_)) => each(row),
            _ => skipped += usize::from(line.ends_with(b"\n")),
        }
        line.clear();
    }
    Ok(Some(skipped))
}

/// A run's metrics in the first and in the last tenth of its steps.
pub struct RunEnds(Metrics);

impl RunEnds {
    /// Reads the metrics of the run in the folder `dir`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn of_run(dir: &Path) -> Result<RunEnds> {
        let mut metrics = Metrics::default();
        for_each_row(&dir.join(METRICS), |row| metrics.push(&row))?;
        Ok(RunEnds(metrics))
    }

    /// The names of the metrics that the run has.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.columns.keys().map(String::as_str)
    }

    /// The last value of a metric; `None` if the run does not have it.
    pub fn last(&self, metric: &str) -> Option<f64> {
        self.0.last(metric)
    }

    /// The means of a metric over the first and the last tenth of the steps; `None` if the run does not have it.
    pub fn of(&self, metric: &str) -> Option<(f64, f64)> {
        self.0.ends(metric)
    }
}

/// The numbers in `metrics.jsonl` by column; NaN for a step without the metric.
#[derive(Default)]
pub(super) struct Metrics {
    pub(super) steps: Vec<f64>,
    columns: HashMap<String, Vec<f64>>,
}

impl Metrics {
    pub(super) fn push(&mut self, row: &Value) {
        let (Some(step), Some(row)) = (row["step"].as_f64(), row.as_object()) else { return };
        for (name, value) in row {
            if let Some(value) = value.as_f64() {
                let column = self.columns.entry(name.clone()).or_default();
                column.resize(self.steps.len(), f64::NAN);
                column.push(value);
            }
        }
        self.steps.push(step);
    }

    pub(super) fn column(&self, name: &str) -> impl Iterator<Item = f64> + Clone {
        let column = self.columns.get(name).map(Vec::as_slice).unwrap_or_default();
        (0..self.steps.len()).map(|i| column.get(i).copied().unwrap_or(f64::NAN))
    }

    /// The finite values of a column.
    pub(super) fn values(&self, name: &str) -> Vec<f64> {
        self.column(name).filter(|v| v.is_finite()).collect()
    }

    /// The metrics without the run's first step, unless it is the only one.
    pub(super) fn without_first(&self) -> Metrics {
        let from = usize::from(self.steps.len() > 1 && self.steps[0] == 1.0);
        let columns = self.columns.iter().map(|(name, values)| {
            let rest = values.get(from..).unwrap_or_default();
            (name.clone(), rest.to_vec())
        });
        Metrics { steps: self.steps[from..].to_vec(), columns: columns.collect() }
    }

    pub(super) fn curve(&self, name: &str, values: impl Iterator<Item = f64>) -> Series {
        Series::noisy(name, self.steps.iter().copied().zip(values))
    }

    pub(super) fn last(&self, name: &str) -> Option<f64> {
        self.values(name).last().copied()
    }

    /// The means over the first and the last tenth of the steps.
    pub(super) fn ends(&self, name: &str) -> Option<(f64, f64)> {
        let values = self.values(name);
        let tenth = values.len().div_ceil(10);
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        (tenth > 0).then(|| (mean(&values[..tenth]), mean(&values[values.len() - tenth..])))
    }
}

/// `pairs.jsonl`: counts of all rows, and some evenly spaced rows.
#[derive(Default)]
pub(super) struct Pairs {
    pub(super) total: usize,
    first: usize,
    second: usize,
    tie: usize,
    invalid: usize,
    identical: usize,
    /// Responses that were rated one by one; such a run has no pairs.
    pub(super) rated: usize,
    /// Pairs that were judged in both orders, and those of them whose orders disagree.
    pub(super) both_orders: usize,
    pub(super) flipped: usize,
    kept: Vec<Value>,
    stride: usize,
}

impl Pairs {
    pub(super) fn push(&mut self, row: Value) {
        let verdict = match row["verdict"].as_str() {
            Some("1") => &mut self.first,
            Some("2") => &mut self.second,
            Some("tie") => &mut self.tie,
            Some("invalid") => &mut self.invalid,
            _ if is_rating(&row) && row["score"].is_null() => &mut self.invalid,
            _ if is_rating(&row) => &mut self.rated,
            _ => &mut self.identical,
        };
        *verdict += 1;
        if let Some((shown_first, shown_second)) = orders(&row) {
            self.both_orders += 1;
            self.flipped += usize::from(orders_disagree(Some(shown_first), Some(shown_second)));
        }
        self.stride = self.stride.max(1);
        if self.total.is_multiple_of(self.stride) {
            self.kept.push(row);
            if self.kept.len() == 4 * SHOWN {
                // Keeps every other row, which are the rows at multiples of twice the stride.
                let mut even = false;
                self.kept.retain(|_| {
                    even = !even;
                    even
                });
                self.stride *= 2;
            }
        }
        self.total += 1;
    }

    /// Evenly spaced rows, including the first and the last that were kept.
    pub(super) fn sample(&self) -> impl Iterator<Item = &Value> {
        evenly(self.kept.len(), SHOWN).map(|i| &self.kept[i])
    }

    pub(super) fn summary(&self) -> String {
        let share = |part: usize, whole: usize| Unit::Share.format(part as f64 / whole as f64);
        let decided = self.first + self.second;
        let what = if self.rated > 0 { "responses" } else { "pairs" };
        let mut parts = vec![format!("{} {what}", number(self.total as f64))];
        if decided > 0 {
            let (count, won) = (number(decided as f64), share(self.first, decided));
            parts.push(format!("{count} with a preference ({won} for response 1)"));
        }
        for (count, what) in [
            (self.rated, "rated"),
            (self.tie, "tied"),
            (self.invalid, "unusable"),
            (self.identical, "identical and not judged"),
        ] {
            if count > 0 {
                parts.push(format!("{} {what}", number(count as f64)));
            }
        }
        let flips = match self.both_orders {
            0 => String::new(),
            judged => format!(
                " The pairs were judged in both orders; in {} of them the judge preferred the same position both times.",
                share(self.flipped, judged)
            ),
        };
        format!("{}.{flips}", parts.join(", "))
    }
}

/// The probabilities for response 1 in each order, if both orders were judged.
fn orders(row: &Value) -> Option<(f64, f64)> {
    row["p_12"].as_f64().zip(row["p_21"].as_f64())
}

/// Whether a row is a single response with its rating instead of a pair.
fn is_rating(row: &Value) -> bool {
    row.get("response").is_some()
}

pub(super) fn sample(row: &Value) -> Sample {
    let text = |key: &str| row[key].as_str().unwrap_or_default();
    let verdict = text("verdict");
    let mut sample = Sample::new(text("prompt"));
    if let Some(step) = row["step"].as_u64() {
        sample = sample.label(format!("step {}", number(step as f64)));
    }
    if is_rating(row) {
        let skipped = row["skipped"].as_str().map(|why| format!("skipped: {why}"));
        let rated = row["score"].as_f64().map(|score| {
            format!("rating {score:.3}, advantage {:.3}", row["advantage"].as_f64().unwrap_or_default())
        });
        let note = rated.into_iter().chain(skipped).collect::<Vec<_>>().join("; ");
        return sample.response("response", text("response")).note(note);
    }
    for (key, won) in [("response_1", "1"), ("response_2", "2")] {
        let label = format!("response {won}");
        sample = match verdict == won {
            true => sample.preferred(label, text(key)),
            false => sample.response(label, text(key)),
        };
    }
    let mut parts = Vec::new();
    if let Some(p) = row["p_first"].as_f64() {
        let each =
            orders(row).map_or(String::new(), |(a, b)| format!(" ({a:.3} shown first, {b:.3} shown second)"));
        parts.push(format!("judge's probability for response 1: {p:.3}{each}"));
    }
    if verdict == "tie" {
        parts.push("a tie".into());
    }
    if orders(row).is_some_and(|(a, b)| orders_disagree(Some(a), Some(b))) {
        parts.push("order flip".into());
    }
    match row["skipped"].as_str() {
        Some(why) => parts.push(format!("skipped: {why}")),
        None if ["1", "2"].contains(&verdict) && row.get("chosen").is_some_and(Value::is_null) => {
            parts.push("not trained on".into());
        }
        None => {}
    }
    sample.note(parts.join("; "))
}

/// The responses of the starting model and of the policy to held-out prompts, rows of `eval_samples.jsonl`.
pub(super) fn before_and_after(rows: &[Value]) -> Section {
    let section = Section::new("Before and after");
    let Some(step) = rows.first().and_then(|row| row["step"].as_u64()) else { return section };
    let empty = rows.iter().filter(|row| row["policy_response"].as_str().is_some_and(str::is_empty)).count();
    let empty = match empty {
        0 => String::new(),
        count => format!(" {count} of the policy's responses are empty."),
    };
    let text = format!(
        "Responses to {} of the held-out prompts, chosen evenly, and the verdict of the run's own judge.{empty}",
        rows.len()
    );
    rows.iter().fold(section.text(text), |section, row| {
        let text = |key: &str| row[key].as_str().unwrap_or_default();
        let mut sample = Sample::new(text("prompt"));
        let policy = format!("policy after {} steps", number(step as f64));
        for (label, key, wins) in
            [("starting model", "starting_response", "loss"), (policy.as_str(), "policy_response", "win")]
        {
            sample = match text("verdict") == wins {
                true => sample.preferred(label, text(key)),
                false => sample.response(label, text(key)),
            };
        }
        let p = match (row["p_12"].as_f64(), row["p_21"].as_f64()) {
            (Some(a), Some(b)) if a != b => Some(format!("{a:.3} shown first, {b:.3} shown second")),
            (Some(p), _) | (_, Some(p)) => Some(format!("{p:.3}")),
            (None, None) => None,
        };
        let p = p.map(|p| format!("judge's probability for the policy's response: {p}"));
        let note = match text("verdict") {
            "invalid" => Some("no usable verdict".into()),
            "tie" if text("policy_response") == text("starting_response") => {
                Some("identical responses".into())
            }
            "tie" => Some(p.map_or("a tie".into(), |p| format!("a tie; {p}"))),
            _ => p,
        };
        section.sample(sample.note(note.unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_pairs_shown_are_spread_over_the_whole_run() {
        for total in [1, 2, SHOWN, SHOWN + 1, 100, 1600, 9999] {
            let mut pairs = Pairs::default();
            (1..=total).for_each(|i| pairs.push(json!({"step": i})));
            let steps: Vec<u64> = pairs.sample().map(|row| row["step"].as_u64().unwrap()).collect();
            assert_eq!(steps.len(), total.min(SHOWN), "{total}");
            assert!(steps.windows(2).all(|w| w[0] < w[1]), "{total}: {steps:?}");
            assert_eq!(steps[0], 1);
            assert!(steps[steps.len() - 1] as f64 >= 0.93 * total as f64, "{total}: {steps:?}");
            assert!(pairs.kept.len() < 4 * SHOWN);
        }
    }

    #[test]
    fn pairs_are_counted_by_verdict() {
        let mut pairs = Pairs::default();
        let rows = [("1", 0.8, 0.7), ("2", 0.1, 0.2), ("tie", 0.6, 0.4), ("1", 0.9, 0.4)];
        for (verdict, a, b) in rows {
            pairs.push(json!({"verdict": verdict, "p_12": a, "p_21": b}));
        }
        pairs.push(json!({"verdict": "invalid", "p_12": null, "p_21": null, "skipped": "broken"}));
        pairs.push(json!({"skipped": "identical responses"}));
        let expected = "6 pairs, 3 with a preference (66.7 % for response 1), 1 tied, 1 unusable, 1 identical and not \
                        judged. The pairs were judged in both orders; in 50.0 % of them the judge preferred the same position \
                        both times.";
        assert_eq!(pairs.summary(), expected);
    }
}
