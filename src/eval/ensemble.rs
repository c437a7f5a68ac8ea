//! The agreement of the members of an ensemble of judges.

use serde::{Deserialize, Serialize};

use super::agreement::kappa_of;
use super::comparison::Decision;
use super::interval::wilson_interval;
use crate::judge::{Verdict, round_robin};

/// Counts over the pairs judged by an ensemble.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Votes {
    /// Pairs with a usable verdict of at least two members.
    pairs: usize,
    /// Pairs of these on which all such members gave the same verdict.
    unanimous: usize,
    /// For every two members, the table of their verdicts: win, tie, loss.
    tables: Vec<[[usize; 3]; 3]>,
    /// Counts of usable verdicts per member.
    members: Vec<MemberVotes>,
}

/// Counts over the verdicts of a member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberVotes {
    asked: usize,
    unusable: usize,
    /// The reason of the first unusable verdict.
    why: String,
}

/// If more than this share of a member's verdicts is unusable, the other members decide nearly alone.
const MOSTLY: f64 = 0.5;

/// The agreement over all pairs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct VotesReport {
    /// Share of the pairs judged so far on which all members with a usable verdict (at least two) gave the same verdict:
    /// 1, 2 or tie.
    #[serde(rename = "judge/agreement")]
    pub agreement: f64,
    /// Cohen's κ over these verdicts, mean over every two members. `null` if no two members have a κ.
    #[serde(rename = "judge/kappa")]
    pub kappa: Option<f64>,
}

impl Votes {
    /// Counts the verdicts of the members on a pair. `votes` is empty for a judge that is not an ensemble.
    pub fn add(&mut self, votes: &[Verdict]) {
        self.members.resize_with(votes.len().max(self.members.len()), MemberVotes::default);
        for (member, vote) in self.members.iter_mut().zip(votes) {
            member.asked += 1;
            if let Verdict::Invalid { why } = vote {
                if member.unusable == 0 {
                    member.why.clone_from(why);
                }
                member.unusable += 1;
            }
        }
        let decision = |vote: &Verdict| vote.p_first().map(|p| Decision::of(p.into()));
        let decisions: Vec<Option<Decision>> = votes.iter().map(decision).collect();
        let usable: Vec<Decision> = decisions.iter().copied().flatten().collect();
        if usable.len() > 1 {
            self.pairs += 1;
            self.unanimous += usize::from(usable.iter().all(|decision| *decision == usable[0]));
        }
        for (at, (i, j)) in round_robin(votes.len()).into_iter().enumerate() {
            if at == self.tables.len() {
                self.tables.push(Default::default());
            }
            if let (Some(a), Some(b)) = (decisions[i], decisions[j]) {
                self.tables[at][a as usize][b as usize] += 1;
            }
        }
    }

    /// Pairs with a usable verdict of at least two members.
    pub fn pairs(&self) -> usize {
        self.pairs
    }

    /// The members most of whose verdicts are unusable, by index, with a warning for each. `names` are the names of the
    /// members, `of` is the name of the ensemble in the warning. With `early`, only members for which this is
    /// significant at 95 %.
    pub fn mute(&self, of: &str, names: &[String], early: bool) -> Vec<(usize, String)> {
        let is_mute = |member: &MemberVotes| match early {
            true => wilson_interval(member.unusable, member.asked).0 > MOSTLY,
            false => member.unusable as f64 > MOSTLY * member.asked as f64,
        };
        let text = |place: usize, name: &str, MemberVotes { asked, unusable, why }: &MemberVotes| {
            format!(
                "member {} of {of} ({name}) has no usable verdict on {unusable} of {asked} pairs, which the other members decide \
                 alone; the first reason: {why}; check its prompts and its answers, or leave it out",
                place + 1
            )
        };
        let members = names.iter().zip(&self.members).enumerate().filter(|(_, (_, member))| is_mute(member));
        members.map(|(place, (name, member))| (place, text(place, name, member))).collect()
    }

    /// The agreement; `None` if no pair has two usable verdicts.
    pub fn report(&self) -> Option<VotesReport> {
        if self.pairs == 0 {
            return None;
        }
        let known = self.tables.iter().filter(|table| table.iter().flatten().any(|count| *count > 0));
        let kappas: Vec<f64> = known.filter_map(|table| kappa_of(*table).kappa).collect();
        Some(VotesReport {
            agreement: self.unanimous as f64 / self.pairs as f64,
            kappa: (!kappas.is_empty()).then(|| kappas.iter().sum::<f64>() / kappas.len() as f64),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(p: Option<f32>) -> Verdict {
        p.map_or(Verdict::Invalid { why: "mute".into() }, Verdict::from_probability)
    }

    #[test]
    fn a_member_without_usable_verdicts_is_named_with_its_share_and_first_reason() {
        let mut votes = Votes::default();
        let names = ["command", "rule longer"].map(str::to_owned);
        let warnings = |votes: &Votes, early| votes.mute("the ensemble", &names, early);
        for n in 1..=4 {
            assert_eq!(warnings(&votes, true), [], "{n}");
            let why = format!("out of {n}");
            votes.add(&[Verdict::Invalid { why }, Verdict::Tie]);
            assert_eq!(warnings(&votes, false).len(), 1, "{n}");
        }
        let (place, text) = warnings(&votes, true).remove(0);
        assert_eq!(place, 0);
        for part in ["member 1 of the ensemble (command)", "4 of 4 pairs", "first reason: out of 1;"] {
            assert!(text.contains(part), "{text}");
        }
        // With more usable verdicts there is no warning.
        (0..4).for_each(|_| votes.add(&[Verdict::Tie, Verdict::Tie]));
        assert!(warnings(&votes, true).is_empty() && warnings(&votes, false).is_empty());
    }

    #[test]
    fn agreement_and_kappa_equal_a_computation_by_hand() {
        let mut votes = Votes::default();
        votes.add(&[]);
        assert_eq!(votes.report(), None);
        // Verdicts of three members: win, win, loss / win, win, win / loss, tie, loss / loss, none, loss.
        for said in [
            [Some(0.9), Some(0.6), Some(0.2)],
            [Some(0.9), Some(1.0), Some(0.7)],
            [Some(0.1), Some(0.5), Some(0.0)],
            [Some(0.1), None, Some(0.0)],
            // A single usable verdict does not count.
            [Some(0.9), None, None],
        ] {
            votes.add(&said.map(verdict));
        }
        let report = votes.report().unwrap();
        assert_eq!((votes.pairs(), report.agreement), (4, 0.5));
        // 1 and 2: of 3, observed 2/3, chance 2/3·2/3 = 4/9: κ = 0.4. 1 and 3: of 4, observed 3/4, chance 1/2·1/4 + 1/2·3/4
        // = 1/2: κ = 0.5. 2 and 3: of 3, observed 1/3, chance 2/3·1/3 = 2/9: κ = 1/7.
        let kappa = (0.4 + 0.5 + 1.0 / 7.0) / 3.0;
        assert!((report.kappa.unwrap() - kappa).abs() < 1e-12, "{report:?}");
    }
}
