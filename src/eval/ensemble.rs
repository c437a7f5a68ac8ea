//! How far the members of an ensemble of judges agree.

use serde::{Deserialize, Serialize};

use super::agreement::kappa_of;
use super::comparison::Decision;
use crate::annotate::{Verdict, round_robin};

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
}

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
