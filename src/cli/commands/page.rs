//! The page of a run (`--ui`), or labelling in the terminal without it.

#[cfg(feature = "ui")]
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::args::TrainPlan;
#[cfg(feature = "ui")]
use crate::cli::console;
use crate::cli::console::Console;
use crate::cli::labelling::Labelling;
use crate::error::Result;
use crate::judge::human::Desk;
#[cfg(feature = "ui")]
use crate::report::Run;
use crate::train::{Observer, Requests};
#[cfg(feature = "ui")]
use crate::ui::{LiveRun, Served, Ui, UiObserver, UiOptions};

/// The page of a run and the desk of its human judge.
#[derive(Default)]
pub struct Page {
    /// Pairs that wait for a person.
    desk: Option<Arc<Desk>>,
    #[cfg(feature = "ui")]
    served: Option<Watched>,
}

/// A run with a page.
#[cfg(feature = "ui")]
struct Watched {
    options: UiOptions,
    live: Arc<LiveRun>,
    folder: PathBuf,
}

#[cfg(feature = "ui")]
impl Watched {
    /// The page of a run before its first step, in the words of its report.
    fn of(command: &str, plan: &TrainPlan, options: UiOptions) -> Watched {
        let (model, folder) = (super::summary::name(plan), plan.options.folder().to_owned());
        let mut config = plan.config.clone();
        config["command"] = command.into();
        let run = Run::before(config);
        let title = format!("oaif {command}: {}", run.file("model").unwrap_or_else(|| model.clone()));
        let facts = [
            ("Model", Some(model)),
            ("Dataset", run.configured("dataset")),
            ("Judge", run.judge_in_words()),
            ("Loss", run.loss_in_words()),
            ("Run folder", Some(folder.display().to_string())),
        ];
        let facts = facts.into_iter().filter_map(|(name, fact)| Some((name.to_owned(), fact?))).collect();
        let live = LiveRun::new(title, facts).kl_name(run.kl_name());
        Watched { options, live: Arc::new(live), folder }
    }
}

/// The end of a run in sentences: its result, as in its report, and its folder.
#[cfg(feature = "ui")]
fn done(folder: &Path) -> String {
    // A folder that cannot be read is an error of the report.
    let result = Run::open(folder).map(|run| run.sentence() + " ").unwrap_or_default();
    format!("The run is done. {result}The files are in {}.", folder.display())
}

impl Page {
    /// The page of the flags.
    pub fn of(command: &str, plan: &TrainPlan, desk: Option<Arc<Desk>>) -> Page {
        #[cfg(feature = "ui")]
        let served = plan.ui.clone().map(|options| Watched::of(command, plan, options));
        #[cfg(not(feature = "ui"))]
        let _ = (command, plan);
        Page {
            desk,
            #[cfg(feature = "ui")]
            served,
        }
    }

    /// Runs the training while serving the page or the labelling in the terminal.
    pub fn beside<T>(
        self,
        console: &mut Console,
        requests: &Arc<Requests>,
        run: impl FnOnce(&mut dyn Observer) -> Result<T>,
    ) -> Result<T> {
        #[cfg(feature = "ui")]
        if let Some(Watched { options, live, folder }) = self.served {
            let served = Served { desk: self.desk, live: live.clone(), requests: requests.clone() };
            let page = Ui::start(&options, served)?;
            console::page(page.url());
            let result = run(&mut UiObserver::new(live.clone(), console));
            live.end(match &result {
                Ok(_) => done(&folder),
                Err(error) => format!("The run has ended: {error}"),
            });
            return result;
        }
        let _terminal = self.desk.map(|desk| Labelling::start(desk, requests.clone()));
        run(console)
    }
}

#[cfg(all(test, feature = "ui"))]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::train::run_dir::METRICS;

    #[test]
    fn the_end_of_a_run_names_its_win_rate_and_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let row = json!({
            "step": 25, "loss": 0.5, "eval/win_rate": 0.8, "eval/win_rate_low": 0.7, "eval/win_rate_high": 0.9,
            "eval/prompts": 50,
        });
        std::fs::write(dir.path().join(METRICS), format!("{row}\n")).unwrap();
        let text = done(dir.path());
        let won = "The run is done. After 25 steps the policy wins 80 % (95 % interval 70 to 90) of 50 held-out prompts";
        assert!(text.starts_with(won), "{text}");
        let place = format!("The files are in {}.", dir.path().display());
        assert!(text.ends_with(&place), "{text}");
        let none = dir.path().join("none");
        assert_eq!(done(&none), format!("The run is done. The files are in {}.", none.display()));
    }
}
