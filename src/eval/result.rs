//! The result of an evaluation: the contents of `eval.json`, and the printed sentence and table.

use std::fmt::{self, Display};

use serde::Serialize;

use super::agreement::{Kappa, OrderEffect, Share, cohen_kappa, length_preference, order_effect};
use super::bootstrap::Bootstrap;
use super::comparison::{Comparison, Decision, Decisions, LengthBucket, length_buckets, preferences};
use super::diversity::{ResponseStatistics, ResponseText, summarise};
use super::ensemble::{Votes, VotesReport};
use super::interval::{Interval, Mean, mean_with_error, wilson_of_preferences};
use super::judging::PairVerdict;
use super::length_control::{LengthControl, LengthControlled, length_controlled};
use crate::error::{Error, Result};
use crate::judge::queue::Usage;
use crate::train::habits::{FEWEST, MOST_FLIPS};

/// The number of buckets of the difference in length.
const BUCKETS: usize = 5;
/// The share of unusable verdicts above which the user is warned.
const MANY_INVALID: f64 = 0.1;

/// A response of A or B.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EvaluatedResponse {
    /// The text, as shown to the judge.
    pub text: String,
    /// Its length in tokens, if it was sampled here.
    pub tokens: Option<usize>,
    /// Whether it ended by itself rather than at the length limit, if it was sampled here.
    pub ended: Option<bool>,
    /// log π(y | x) − log π₀(y | x) in nats, for A's responses if its reference π₀ is known.
    pub kl: Option<f64>,
}

/// A prompt with both responses and the verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluatedPair {
    /// The prompt, as shown to the judge.
    pub prompt: String,
    /// A's response.
    pub a: EvaluatedResponse,
    /// B's response.
    pub b: EvaluatedResponse,
    /// The judge's verdict.
    pub verdict: PairVerdict,
}

impl EvaluatedPair {
    /// The row of `responses.jsonl`.
    pub fn row(&self) -> PairRow<'_> {
        PairRow {
            prompt: &self.prompt,
            response_a: &self.a.text,
            response_b: &self.b.text,
            verdict: self.verdict.decision().map_or("invalid", Decision::name),
            p_12: self.verdict.p_12,
            p_21: self.verdict.p_21,
            kl: self.a.kl,
            why: self.verdict.why.as_deref(),
        }
    }

    fn lengths(&self) -> (f64, f64) {
        let of = |response: &EvaluatedResponse| response.text.chars().count() as f64;
        (of(&self.a), of(&self.b))
    }
}

/// A row of `responses.jsonl`.
#[derive(Clone, Debug, Serialize)]
pub struct PairRow<'a> {
    prompt: &'a str,
    response_a: &'a str,
    response_b: &'a str,
    /// "win" (of A), "tie", "loss" or "invalid".
    verdict: &'a str,
    /// The judge's probability that A's response is better, when shown first.
    p_12: Option<f64>,
    /// The same, when shown second.
    p_21: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kl: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

/// The sides of a comparison, and the judge.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Contest {
    /// A: a model, with its LoRA adapter.
    pub a: String,
    /// B, likewise.
    pub b: String,
    /// The name of B in the sentence: "the starting model", "the reference responses".
    pub against: String,
    /// The judge's name.
    pub judge: String,
    /// The names of the members of an ensemble.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
}

/// Another judge's verdicts on the same responses.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SecondJudge {
    /// Its name, or the file from which its verdicts were read.
    pub judge: String,
    /// Wins, ties and losses of A according to it.
    pub decisions: Decisions,
    /// (wins + ties/2) / decided.
    pub win_rate: Option<f64>,
    /// 95 % interval of the win rate.
    pub interval: Interval,
    /// The agreement of the two judges, over the prompts that both decided; `None` without such a prompt.
    pub agreement: Option<Kappa>,
    /// What it consumed in this evaluation.
    pub usage: Usage,
}

/// Which model wrote the responses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnModel {
    /// The model of the judge.
    OfJudge,
    /// The model of the ensemble's member with this name.
    OfMember(String),
}

impl Display for OwnModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OwnModel::OfJudge => f.write_str("the judge's own model"),
            OwnModel::OfMember(name) => write!(f, "the own model of the judge's member {name}"),
        }
    }
}

/// Marks the responses that were written by the judge's own model, and measures the judge's preference for them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SelfPreference {
    /// "A" or "B".
    pub own: String,
    /// Which model it is.
    pub model: OwnModel,
    /// How much more often the judge prefers its own model's responses than a second judge does whose model wrote
    /// neither side: the mean difference of their decisions (1, ½, 0) over the prompts that both decided. `None`
    /// without such a judge.
    pub above_second_judge: Option<Mean>,
}

impl SelfPreference {
    /// "+3.5 ± 1.2 points", with the standard error.
    pub fn points(&self) -> Option<String> {
        let above = self.above_second_judge?;
        let error =
            above.standard_error.is_finite().then(|| format!(" ± {:.1}", 100.0 * above.standard_error));
        Some(format!("{:+.1}{} points", 100.0 * above.mean, error.unwrap_or_default()))
    }
}

/// All results of an evaluation. Win rates are of A, counting ties as half a win. Lengths are in characters unless
/// called tokens. Intervals are at 95 %.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EvalResult {
    /// The sides of the comparison, and the judge.
    #[serde(flatten)]
    pub contest: Contest,
    /// Prompts with responses of both sides.
    pub prompts: usize,
    /// Counts of wins, ties and losses.
    #[serde(flatten)]
    pub decisions: Decisions,
    /// Prompts on which both responses are equal. They are counted as ties.
    pub identical: usize,
    /// (wins + ties/2) / decided.
    pub win_rate: f64,
    /// Its interval, [`wilson_of_preferences`].
    pub interval: Interval,
    /// Its BCa bootstrap interval over prompts.
    pub bootstrap_interval: Interval,
    /// Mean of the judge's probabilities for A, with its standard error; equals the win rate if they are all 0, ½ or 1.
    pub mean_preference: Mean,
    /// The win rate at equal lengths.
    pub length_controlled: LengthControlled,
    /// Win rates in buckets of the length of A's response minus that of B's.
    pub length_buckets: Vec<LengthBucket>,
    /// How often the longer response wins.
    pub length_preference: Share,
    /// The effect of the order of the responses, over the pairs judged in both.
    pub order: OrderEffect,
    /// Lengths and diversity of A's responses.
    pub responses_a: ResponseStatistics,
    /// Lengths and diversity of B's responses.
    pub responses_b: ResponseStatistics,
    /// log π(y | x) − log π₀(y | x) in nats, mean over A's responses; π₀ is the model from which A was trained.
    pub kl: Option<Mean>,
    /// The agreement of the members of an ensemble of judges.
    #[serde(flatten)]
    pub ensemble: Option<VotesReport>,
    /// Set if the judge's own model wrote the responses of one side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub self_preference: Option<SelfPreference>,
    /// Another judge's verdicts.
    pub second_judge: Option<SecondJudge>,
    /// What the judge consumed.
    pub usage: Usage,
    /// Warnings for the reader.
    pub warnings: Vec<String>,
}

impl EvalResult {
    /// Computes the results of `pairs`.
    ///
    /// # Errors
    /// [`Error::Config`] without prompts; [`Error::Judge`] if no verdict is usable.
    pub fn of(contest: Contest, pairs: &[EvaluatedPair], usage: Usage) -> Result<EvalResult> {
        if pairs.is_empty() {
            return Err(Error::config(
                "prompts",
                "no prompt is left: use prompts that fit into the context of the models",
            ));
        }
        // Wins, ties and losses count 1, ½ and 0, regardless of the judge's confidence, so that length control applies
        // to the same win rate.
        let mut soft = Vec::with_capacity(pairs.len());
        let mut hard = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let (length_a, length_b) = pair.lengths();
            let comparison = pair.verdict.comparison(length_a, length_b)?;
            let decided = comparison.decision().map(Decision::preference);
            hard.push(Comparison::single(decided, length_a, length_b)?);
            soft.push(comparison);
        }
        let decisions = Decisions::of(&hard);
        let first_why = pairs.iter().find_map(|pair| pair.verdict.why.as_deref()).unwrap_or_default();
        let values = preferences(&hard);
        let (Some(win_rate), Some(mean_preference)) =
            (decisions.win_rate(), mean_with_error(&preferences(&soft)))
        else {
            let why = format!(
                "gave no usable verdict on {} pairs ({first_why}): check its prompts and its answers",
                pairs.len()
            );
            return Err(Error::Judge { name: contest.judge, why });
        };
        let mut warnings = Vec::new();
        if decisions.invalid as f64 > MANY_INVALID * pairs.len() as f64 {
            warnings.push(format!(
                "{} of {} verdicts are unusable and excluded from all shares; the first reason: {first_why}",
                decisions.invalid,
                pairs.len()
            ));
        }
        let statistics = |response: fn(&EvaluatedPair) -> &EvaluatedResponse| {
            let texts: Vec<ResponseText> = pairs
                .iter()
                .map(response)
                .map(|response| ResponseText {
                    text: &response.text,
                    tokens: response.tokens,
                    ended: response.ended,
                })
                .collect();
            summarise(&texts)
        };
        let mut votes = Votes::default();
        pairs.iter().for_each(|pair| votes.add(&pair.verdict.votes));
        warnings.extend(votes.mute("the judge", &contest.members, false).into_iter().map(|(_, text)| text));
        let order = order_effect(&soft);
        if order.flipped.count >= FEWEST && order.flipped.interval.low > MOST_FLIPS {
            warnings.push(format!(
                "the judge preferred the same position in both orders in {:.0} % of {} pairs (a judge that guesses does so in \
                 50 %): its verdicts are mostly noise; use a larger judge or another template",
                100.0 * order.flipped.share.unwrap_or_default(),
                order.flipped.count
            ));
        }
        let kl: Vec<f64> = pairs.iter().filter_map(|pair| pair.a.kl).collect();
        Ok(EvalResult {
            contest,
            prompts: pairs.len(),
            decisions,
            identical: pairs.iter().filter(|pair| pair.verdict.identical).count(),
            win_rate,
            interval: wilson_of_preferences(&values),
            bootstrap_interval: Bootstrap::default().bca_mean(&values)?,
            mean_preference,
            length_controlled: length_controlled(&hard, &LengthControl::default())?,
            length_buckets: length_buckets(&hard, BUCKETS)?,
            length_preference: length_preference(&hard),
            order,
            responses_a: statistics(|pair| &pair.a)?,
            responses_b: statistics(|pair| &pair.b)?,
            kl: mean_with_error(&kl),
            ensemble: votes.report(),
            self_preference: None,
            second_judge: None,
            usage,
            warnings,
        })
    }

    /// Records that A's responses (or B's) were written by the judge's own `model`. `second` are the decisions of a
    /// judge whose model wrote neither side.
    pub fn judged_by_its_own_model(
        &mut self,
        is_a: bool,
        model: OwnModel,
        pairs: &[EvaluatedPair],
        second: Option<&[Option<Decision>]>,
    ) {
        let own = if is_a { "A" } else { "B" }.to_owned();
        let difference = |(pair, second): (&EvaluatedPair, &Option<Decision>)| {
            let more = pair.verdict.decision()?.preference() - second.as_ref()?.preference();
            Some(if is_a { more } else { -more })
        };
        let differences: Option<Vec<f64>> =
            second.map(|second| pairs.iter().zip(second).filter_map(difference).collect());
        let above_second_judge = differences.and_then(|differences| mean_with_error(&differences));
        if above_second_judge.is_none() {
            self.warnings.push(format!(
                "{own}'s responses were written by {model}, which such judges tend to prefer: use a second judge whose model \
                 wrote neither side to measure this"
            ));
        }
        self.self_preference = Some(SelfPreference { own, model, above_second_judge });
    }

    /// Adds another judge's decisions on the same pairs, in their order. `why` is the reason of its first unusable
    /// verdict, if known.
    ///
    /// # Errors
    /// As [`cohen_kappa`].
    pub fn compare_with(
        &mut self,
        judge: String,
        pairs: &[EvaluatedPair],
        second: &[Option<Decision>],
        why: Option<&str>,
        usage: Usage,
    ) -> Result<()> {
        let mut comparisons = Vec::new();
        for (pair, decision) in pairs.iter().zip(second) {
            let (length_a, length_b) = pair.lengths();
            comparisons.push(Comparison::single(decision.map(Decision::preference), length_a, length_b)?);
        }
        let both: Vec<(Decision, Decision)> = pairs
            .iter()
            .zip(second)
            .filter_map(|(pair, second)| pair.verdict.decision().zip(*second))
            .collect();
        let (first, other): (Vec<Decision>, Vec<Decision>) = both.into_iter().unzip();
        let decisions = Decisions::of(&comparisons);
        let why = why.map_or_else(String::new, |why| format!("; the first reason: {why}"));
        if decisions.decided() == 0 {
            self.warnings.push(format!(
                "the second judge gave no usable verdict, so there is no comparison with it{why}; check its prompts and \
                 its answers"
            ));
        } else if decisions.invalid as f64 > MANY_INVALID * pairs.len() as f64 {
            self.warnings.push(format!(
                "{} of {} verdicts of the second judge are unusable and excluded from its shares{why}",
                decisions.invalid,
                pairs.len()
            ));
        }
        self.second_judge = Some(SecondJudge {
            judge,
            decisions,
            win_rate: decisions.win_rate(),
            interval: wilson_of_preferences(&preferences(&comparisons)),
            agreement: if first.is_empty() { None } else { Some(cohen_kappa(&first, &other)?) },
            usage,
        });
        Ok(())
    }

    /// A one-sentence summary.
    pub fn sentence(&self) -> String {
        let Decisions { ties, invalid, .. } = self.decisions;
        let controlled = &self.length_controlled;
        let mut text = format!(
            "A wins {} of {} prompts against {} (95 % interval {}), length-controlled {} ({}); {}",
            percent(self.win_rate),
            self.decisions.decided(),
            self.contest.against,
            range(self.interval),
            percent(controlled.win_rate),
            range(controlled.interval),
            if ties == 1 { "1 tie".into() } else { format!("{ties} ties") },
        );
        if invalid > 0 {
            text += &format!("; {invalid} without a usable verdict");
        }
        let lengths = [&self.responses_b, &self.responses_a];
        let (lengths, unit) = match lengths.map(|responses| responses.mean_tokens) {
            [Some(b), Some(a)] => ([b, a], "tokens"),
            _ => (lengths.map(|responses| responses.mean_characters.unwrap_or_default()), "characters"),
        };
        text + &format!("; responses {:.0} -> {:.0} {unit}", lengths[0], lengths[1])
    }

    /// Further results, as rows of a name and a value.
    pub fn table(&self) -> Vec<(&'static str, String)> {
        let Decisions { wins, ties, losses, .. } = self.decisions;
        let mut rows = vec![
            ("A", self.contest.a.clone()),
            ("B", self.contest.b.clone()),
            ("judge", self.contest.judge.clone()),
            (
                "decided",
                format!("{wins} wins, {ties} ties ({} of equal responses), {losses} losses", self.identical),
            ),
            ("bootstrap", format!("{} %", range(self.bootstrap_interval))),
            ("certainty", format!("mean probability for A {}", percent(self.mean_preference.mean))),
        ];
        if let Some(longer) = self.length_preference.share {
            let Share { interval, count, .. } = self.length_preference;
            let text = format!("wins {} of {count} pairs ({})", percent(longer), range(interval));
            rows.push(("longer response", text));
        }
        if let (Some(flipped), Some(first)) = (self.order.flipped.share, self.order.first_wins.share) {
            let text = format!(
                "{} flips; the response shown first wins {} ({})",
                percent(flipped),
                percent(first),
                range(self.order.first_wins.interval)
            );
            rows.push(("both orders", text));
        }
        let sides = [&self.responses_b, &self.responses_a];
        let both = |name, of: &dyn Fn(&ResponseStatistics) -> Option<String>| {
            let text = |responses: &ResponseStatistics| of(responses).unwrap_or_else(|| "–".into());
            (name, format!("{} -> {}", text(sides[0]), text(sides[1])))
        };
        rows.push(both("characters", &|s| Some(format!("{:.0}", s.mean_characters?))));
        rows.push(both("ended", &|s| Some(percent(s.ended?))));
        rows.push(both("distinct-1,2,3", &|s| {
            let texts = s.distinct.map(|d| d.map_or_else(|| "–".into(), |d| format!("{d:.2}")));
            Some(texts.join(" "))
        }));
        if let Some(kl) = self.kl {
            let error = if kl.standard_error.is_finite() {
                format!(" ± {:.2}", kl.standard_error)
            } else {
                String::new()
            };
            rows.push(("KL to the starting model", format!("{:.2}{error} nats per response", kl.mean)));
        }
        if let Some(VotesReport { agreement, kappa }) = self.ensemble {
            let kappa = kappa.map_or_else(String::new, |kappa| format!(", κ {kappa:.2}"));
            rows.push(("the ensemble", format!("agrees on {} of the pairs{kappa}", percent(agreement))));
        }
        if let Some((own, points)) = self.self_preference.as_ref().and_then(|own| Some((own, own.points()?)))
        {
            let text = format!(
                "{points} for {} (responses of {}), compared with the second judge",
                own.own, own.model
            );
            rows.push(("self-preference", text));
        }
        if let Some(second) = &self.second_judge {
            let mut text = match second.win_rate {
                Some(rate) => {
                    format!("{}: A wins {} ({})", second.judge, percent(rate), range(second.interval))
                }
                None => format!("{}: no usable verdict", second.judge),
            };
            if let Some(Kappa { kappa, interval, agreement, .. }) = &second.agreement {
                text += &format!("; agrees in {}", agreement.share.map_or_else(|| "–".into(), percent));
                if let (Some(kappa), Some(interval)) = (kappa, interval) {
                    text += &format!(", κ {kappa:.2} ({:.2} to {:.2})", interval.low, interval.high);
                }
            }
            rows.push(("second judge", text));
        }
        rows
    }
}

/// "62.5 %".
fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// "55.6 to 68.9", in per cent.
fn range(interval: Interval) -> String {
    format!("{:.1} to {:.1}", 100.0 * interval.low, 100.0 * interval.high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Verdict;

    fn pair(a: &str, b: &str, p: Option<f64>) -> EvaluatedPair {
        let response = |text: &str| EvaluatedResponse {
            text: text.into(),
            tokens: Some(text.len()),
            ended: Some(true),
            kl: None,
        };
        let why = p.is_none().then(|| "mute".to_owned());
        let verdict = PairVerdict { p_12: p, p_21: p, why, ..PairVerdict::default() };
        EvaluatedPair { prompt: "x".into(), a: response(a), b: response(b), verdict }
    }

    fn contest() -> Contest {
        let [a, b, against, judge] = ["a", "b", "the starting model", "test"].map(str::to_owned);
        Contest { a, b, against, judge, members: Vec::new() }
    }

    /// 120 wins, 20 ties and 60 losses of 200.
    fn pairs() -> Vec<EvaluatedPair> {
        let one = |i: usize| {
            let p = if i % 10 < 6 {
                0.8
            } else if i % 10 == 6 {
                0.5
            } else {
                0.1
            };
            pair(&"a".repeat(1 + i % 7), &"b".repeat(1 + i % 5), Some(p))
        };
        (0..200).map(one).collect()
    }

    #[test]
    fn wins_are_counted_regardless_of_the_judges_confidence() {
        let result = EvalResult::of(contest(), &pairs(), Usage::default()).unwrap();
        assert_eq!(result.decisions, Decisions { wins: 120, ties: 20, losses: 60, invalid: 0 });
        assert_eq!((result.win_rate, result.prompts), (0.65, 200));
        assert!((result.mean_preference.mean - 0.56).abs() < 1e-12, "{}", result.mean_preference.mean);
        assert!(result.interval.contains(0.65) && result.interval.width() < 0.14);
        assert!((result.length_controlled.plain_win_rate - 0.65).abs() < 1e-12);
        let sentence = result.sentence();
        for part in [
            "A wins 65.0 % of 200 prompts against the starting model (95 % interval 58.",
            "; 20 ties; responses 3 -> 4 tokens",
        ] {
            assert!(sentence.contains(part), "{sentence}");
        }
        let json = serde_json::to_value(&result).unwrap();
        assert_eq!((&json["wins"], &json["judge"]), (&120.into(), &"test".into()));
        assert!(json["interval"]["low"].is_number() && json["length_controlled"]["win_rate"].is_number());
    }

    #[test]
    fn unusable_verdicts_are_excluded_and_many_give_a_warning() {
        let mut some = pairs();
        some.iter_mut().take(40).for_each(|p| *p = pair("a", "b", None));
        let result = EvalResult::of(contest(), &some, Usage::default()).unwrap();
        assert_eq!((result.decisions.invalid, result.decisions.decided()), (40, 160));
        assert!(result.warnings[0].contains("40 of 200") && result.warnings[0].contains("mute"));
        assert!(result.sentence().contains("of 160 prompts") && result.sentence().contains("; 40 without"));
        let none = vec![pair("a", "b", None); 3];
        let error = EvalResult::of(contest(), &none, Usage::default()).unwrap_err().to_string();
        assert!(error.contains("test: gave no usable verdict on 3 pairs (mute)"), "{error}");
        let error = EvalResult::of(contest(), &[], Usage::default()).unwrap_err().to_string();
        assert!(error.contains("no prompt is left"), "{error}");
    }

    #[test]
    fn an_ensemble_reports_the_agreement_of_its_members() {
        let mut pairs = pairs();
        for (i, pair) in pairs.iter_mut().enumerate() {
            let votes = [0.9, if i % 4 == 0 { 0.1 } else { 0.8 }];
            pair.verdict.votes = votes.map(Verdict::from_probability).into();
        }
        let members = || ["one", "other"].map(str::to_owned).to_vec();
        let result =
            EvalResult::of(Contest { members: members(), ..contest() }, &pairs, Usage::default()).unwrap();
        assert!(result.warnings.is_empty(), "{:?}", result.warnings);
        assert_eq!(result.ensemble.unwrap().agreement, 0.75);
        let line = result.table().into_iter().find(|row| row.0 == "the ensemble").unwrap().1;
        assert!(line.contains("75.0 %"), "{line}");
        let json = serde_json::to_value(&result).unwrap();
        assert_eq!(json["judge/agreement"], 0.75);
        let alone = serde_json::to_value(
            EvalResult::of(contest(), &super::tests::pairs(), Usage::default()).unwrap(),
        );
        assert!(alone.unwrap().get("judge/agreement").is_none());

        let why = "mute".to_owned();
        pairs.iter_mut().for_each(|pair| pair.verdict.votes[1] = Verdict::Invalid { why: why.clone() });
        let result =
            EvalResult::of(Contest { members: members(), ..contest() }, &pairs, Usage::default()).unwrap();
        let expected = "member 2 of the judge (other) has no usable verdict on 200 of 200 pairs";
        assert!(
            result.warnings[0].contains(expected) && result.warnings[0].contains("mute"),
            "{:?}",
            result.warnings
        );
    }

    #[test]
    fn self_preference_is_measured_with_a_second_judge() {
        let pairs = pairs();
        let mut result = EvalResult::of(contest(), &pairs, Usage::default()).unwrap();
        result.judged_by_its_own_model(true, OwnModel::OfJudge, &pairs, None);
        assert!(
            result.warnings[0].starts_with("A's responses were written by the judge's own model"),
            "{:?}",
            result.warnings
        );
        // According to the judge, A wins 120 and ties 20 of 200, according to the second judge it wins 60: 0.65 - 0.3.
        let second: Vec<Option<Decision>> =
            (0..200).map(|i| Some(if i < 60 { Decision::Win } else { Decision::Loss })).collect();
        for (is_a, expected) in [(true, 0.35), (false, -0.35)] {
            result.judged_by_its_own_model(is_a, OwnModel::OfMember("m".into()), &pairs, Some(&second));
            let own = result.self_preference.as_ref().unwrap();
            let above = own.above_second_judge.unwrap();
            assert!((above.mean - expected).abs() < 1e-12 && above.count == 200, "{own:?}");
        }
        assert_eq!(result.warnings.len(), 1);
        // A second judge without decisions gives no measurement.
        result.judged_by_its_own_model(true, OwnModel::OfMember("m".into()), &pairs, Some(&[None; 200]));
        assert!(result.warnings[1].contains("own model of the judge's member m,"), "{:?}", result.warnings);
        result.judged_by_its_own_model(false, OwnModel::OfJudge, &pairs, Some(&second));
        let line = result.table().into_iter().find(|row| row.0 == "self-preference").unwrap().1;
        assert!(line.starts_with("-35.0 ± ") && line.contains("for B"), "{line}");
    }

    #[test]
    fn a_second_judge_with_the_same_verdicts_agrees_fully() {
        let pairs = pairs();
        let mut result = EvalResult::of(contest(), &pairs, Usage::default()).unwrap();
        let mut same: Vec<Option<Decision>> = pairs.iter().map(|p| p.verdict.decision()).collect();
        same[0] = None;
        result.compare_with("other".into(), &pairs, &same, None, Usage::default()).unwrap();
        assert!(result.warnings.is_empty(), "{:?}", result.warnings);
        let second = result.second_judge.as_ref().unwrap();
        let agreement = second.agreement.as_ref().unwrap();
        assert_eq!(
            (agreement.kappa, agreement.agreement.count, second.decisions.invalid),
            (Some(1.0), 199, 1)
        );
        let table = result.table();
        let line = &table.iter().find(|row| row.0 == "second judge").unwrap().1;
        assert!(line.contains("other: A wins") && line.contains("κ 1.00"), "{line}");
    }

    #[test]
    fn a_second_judge_without_usable_verdicts_gives_a_warning() {
        let pairs = pairs();
        let mut result = EvalResult::of(contest(), &pairs, Usage::default()).unwrap();
        let mut some = vec![Some(Decision::Win); 200];
        some[..40].fill(None);
        result.compare_with("other".into(), &pairs, &some, Some("mute"), Usage::default()).unwrap();
        assert!(
            result.warnings[0].contains("40 of 200 verdicts of the second judge"),
            "{:?}",
            result.warnings
        );
        result.compare_with("other".into(), &pairs, &[None; 200], Some("mute"), Usage::default()).unwrap();
        let expected = "the second judge gave no usable verdict, so there is no comparison with it; the first reason: mute";
        assert!(result.warnings[1].starts_with(expected), "{:?}", result.warnings);
        let line = result.table().into_iter().find(|row| row.0 == "second judge").unwrap().1;
        assert_eq!(line, "other: no usable verdict");
    }
}
