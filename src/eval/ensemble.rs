//! How far the members of an ensemble of judges agree.

use serde::{Deserialize, Serialize};

use super::agreement::kappa_of;
use super::comparison::Decision;
use super::interval::wilson_interval;
use crate::judge::{Verdict, round_robin};

/// Counts over pairs that an ensemble judged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Votes {
    /// Pairs with a usable verdict of two members or more.
    pairs: usize,
    /// Those of them on which all these members said the same.
    unanimous: usize,
    /// For every two members the table of their verdicts: win, tie, loss.
    tables: Vec<[[usize; 3]; 3]>,
    /// How far each of them is heard.
    members: Vec<MemberVotes>,
}

/// Counts over the verdicts of a member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberVotes {
    asked: usize,
    unusable: usize,
    /// Why the first unusable one is.
    why: String,
}

/// Where more than this share of a member's verdicts is unusable, the others decide nearly alone.
const MOSTLY: f64 = 0.5;

/// What they come to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct VotesReport {
    /// Share of the pairs on which all members with a usable verdict said the same: 1, 2 or tie.
    #[serde(rename = "judge/agreement")]
    pub agreement: f64,
    /// Cohen's κ, the mean over every two members; `None` where no two have one.
    #[serde(rename = "judge/kappa")]
    pub kappa: Option<f64>,
}

impl Votes {
    /// Counts a pair by each member's verdict. Nothing of a judge that is no ensemble.
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

    /// Pairs with a usable verdict of two members or more.
    pub fn pairs(&self) -> usize {
        self.pairs
    }

    /// The members most of whose verdicts are unusable, by their places, and a sentence about each. `names` are theirs, `of` is
    /// what to call the ensemble. Where it is `early`, that is what the counts so far are sure of at 95 %.
    pub fn mute(&self, of: &str, names: &[String], early: bool) -> Vec<(usize, String)> {
        let told = |member: &MemberVotes| match early {
            true => wilson_interval(member.unusable, member.asked).0 > MOSTLY,
            false => member.unusable as f64 > MOSTLY * member.asked as f64,
        };
        let text = |place: usize, name: &str, MemberVotes { asked, unusable, why }: &MemberVotes| {
            format!(
                "member {} of {of} ({name}) has no usable verdict on {unusable} of {asked} pairs, which the others decide \
                 without it; the first reason: {why}; check what it is asked and what it answers, or leave it out",
                place + 1
            )
        };
        let members = names.iter().zip(&self.members).enumerate().filter(|(_, (_, member))| told(member));
        members.map(|(place, (name, member))| (place, text(place, name, member))).collect()
    }

    /// What they come to; `None` without such a pair.
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
    fn a_member_that_is_not_heard_is_named_with_its_share_and_first_reason() {
        let mut votes = Votes::default();
        let names = ["command", "rule longer"].map(str::to_owned);
        let told = |votes: &Votes, early| votes.mute("the ensemble", &names, early);
        for n in 1..=4 {
            assert_eq!(told(&votes, true), [], "{n}");
            let why = format!("out of {n}");
            votes.add(&[Verdict::Invalid { why }, Verdict::Tie]);
            assert_eq!(told(&votes, false).len(), 1, "{n}");
        }
        let (place, text) = told(&votes, true).remove(0);
        assert_eq!(place, 0);
        for part in ["member 1 of the ensemble (command)", "4 of 4 pairs", "first reason: out of 1;"] {
            assert!(text.contains(part), "{text}");
        }
        // Now and then one is unusable.
        (0..4).for_each(|_| votes.add(&[Verdict::Tie, Verdict::Tie]));
        assert!(told(&votes, true).is_empty() && told(&votes, false).is_empty());
    }

    #[test]
    fn agreement_and_kappa_are_those_by_hand() {
        let mut votes = Votes::default();
        votes.add(&[]);
        assert_eq!(votes.report(), None);
        // Verdicts of three members: win, win, loss / win, win, win / loss, tie, loss / loss, none, loss.
        for said in [
            [Some(0.9), Some(0.6), Some(0.2)],
            [Some(0.9), Some(1.0), Some(0.7)],
            [Some(0.1), Some(0.5), Some(0.0)],
            [Some(0.1), None, Some(0.0)],
            // Alone, a member agrees with nobody.
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
