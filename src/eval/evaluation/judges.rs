//! The verdicts of the judges of an evaluation, and how the judges are related to the policies.

use std::collections::BTreeMap;
use std::path::Path;

use super::{EvalOptions, Event, Watch};
use crate::error::Result;
use crate::eval::comparison::Decision;
use crate::eval::ensemble::Votes;
use crate::eval::judging::{Heard, PairVerdict, judge_pairs};
use crate::eval::result::OwnModel;
use crate::gpu::Gpu;
use crate::judge::Pair;
use crate::judge::config::JudgeConfig;
use crate::judge::ensemble::judges_of;
use crate::judge::journal::{JOURNAL, Journalled};
use crate::judge::queue::{JudgeQueue, Usage};
use crate::train::judge_of_run;

/// A judge. One without a local model takes no GPU memory and is opened before the policies, so that its errors are reported
/// first.
pub(super) enum PendingJudge {
    Opened(Box<dyn JudgeQueue>),
    ToLoad(JudgeConfig),
}

impl PendingJudge {
    pub async fn new(gpu: &Gpu, config: &JudgeConfig) -> Result<PendingJudge> {
        match config.models().is_empty() {
            // Only models have a format and warnings.
            true => config.clone().open(gpu, None, false, &mut |_| {}).await.map(PendingJudge::Opened),
            false => Ok(PendingJudge::ToLoad(config.clone())),
        }
    }
}

/// The verdicts of a judge.
pub(super) struct Judged {
    pub name: String,
    pub identity: BTreeMap<String, String>,
    /// The members of an ensemble.
    members: Vec<Member>,
    pub verdicts: Vec<PairVerdict>,
    pub used: Usage,
}

/// A member of an ensemble of judges.
struct Member {
    name: String,
    identity: BTreeMap<String, String>,
}

impl Judged {
    /// The names of the members of an ensemble.
    pub fn names(&self) -> Vec<String> {
        self.members.iter().map(|member| member.name.clone()).collect()
    }

    /// Which pairs A won.
    pub fn decisions(&self) -> Vec<Option<Decision>> {
        self.verdicts.iter().map(PairVerdict::decision).collect()
    }

    /// The reason of the first unusable verdict.
    pub fn first_reason(&self) -> Option<&str> {
        self.verdicts.iter().find_map(|verdict| verdict.why.as_deref())
    }

    /// Warnings about the members without usable verdicts. `of` is the name of the ensemble.
    pub fn warnings_of_mute_members(&self, of: &str) -> Vec<String> {
        let mut votes = Votes::default();
        self.verdicts.iter().for_each(|verdict| votes.add(&verdict.votes));
        votes.mute(of, &self.names(), false).into_iter().map(|(_, text)| text).collect()
    }

    /// Whether this model, by its fingerprint, is that of the judge or of a member.
    pub fn has(&self, model: &Option<String>) -> Option<OwnModel> {
        let is_it = |identity: &BTreeMap<String, String>| {
            model.is_some() && identity.get("judge-model") == model.as_ref()
        };
        match self.members.iter().find(|member| is_it(&member.identity)) {
            Some(member) => Some(OwnModel::OfMember(member.name.clone())),
            None => is_it(&self.identity).then_some(OwnModel::OfJudge),
        }
    }
}

/// Has judges compare the pairs, in which A's responses are the first.
pub(super) struct Comparing<'e> {
    pub gpu: &'e Gpu,
    pub options: &'e EvalOptions,
    pub pairs: &'e [Pair<'e>],
}

impl Comparing<'_> {
    /// The verdicts of `judge`. They are kept in the journal, in which each judge finds its own rows.
    pub async fn run(&self, judge: PendingJudge, watch: &mut Watch<'_>) -> Result<Judged> {
        let queue = match judge {
            PendingJudge::Opened(queue) => queue,
            PendingJudge::ToLoad(config) => {
                watch(Event::Phase("loading the judge"))?;
                let mut warnings = Vec::new();
                let mut warn = |text: &str| warnings.push(text.to_owned());
                let queue = config.open(self.gpu, self.options.base_dtype, false, &mut warn).await?;
                for text in &warnings {
                    watch(Event::Warning(text))?;
                }
                queue
            }
        };
        let mut judge = Journalled::new(queue);
        judge.open(&self.options.output.join(JOURNAL))?;
        let name = judge.name();
        let (phase, total) = (format!("judging by {name}"), self.pairs.len());
        let seed = self.options.sampling.seed;
        let verdicts = judge_pairs(&mut judge, self.pairs, seed, &mut |event| match event {
            Heard::Judged(done) => watch(Event::Progress { phase: &phase, done, total }),
            Heard::Note(text) => watch(Event::Warning(text)),
            Heard::Other(_) => Ok(()),
        })
        .await?;
        let member =
            |member: &&Journalled<'_>| Ok(Member { name: member.name(), identity: member.identity()? });
        let members = judge.members().iter().map(member).collect::<Result<_>>()?;
        Ok(Judged { identity: judge.identity()?, used: judge.used(), name, members, verdicts })
    }
}

/// A warning if the judge also trained the run: if they are the same, one is a member of the other, or they share members.
pub(super) fn warning_of_shared_judge(run: &Path, judge: &BTreeMap<String, String>) -> Option<String> {
    let (trained, judges) = (judges_of(&judge_of_run(run)?), judges_of(judge));
    let shared = trained.intersection(&judges).count();
    let who = match (shared, trained.len(), judges.len()) {
        (0, ..) => return None,
        (_, trained, judges) if shared == trained && shared == judges => {
            "the judge also trained the run".to_owned()
        }
        (_, _, 1) => "the judge is a member of the ensemble that trained the run".to_owned(),
        (_, 1, _) => "a member of the judge also trained the run".to_owned(),
        (_, _, judges) => format!("{shared} of the judge's {judges} members also trained the run"),
    };
    Some(format!(
        "{who}: this win rate measures how well the run fits that judge, not whether others would prefer its responses; use \
         another judge"
    ))
}
