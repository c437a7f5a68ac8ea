//! The page of a run (`--ui`), or labelling in the terminal without it.

use std::sync::Arc;

use crate::cli::args::TrainPlan;
#[cfg(feature = "ui")]
use crate::cli::console;
use crate::cli::console::Console;
use crate::cli::labelling::Labelling;
use crate::error::Result;
use crate::judge::human::Desk;
use crate::train::{Observer, Requests};
#[cfg(feature = "ui")]
use crate::ui::{LiveRun, Served, Ui, UiObserver, UiOptions};

/// The page of a run and the desk of its human judge.
#[derive(Default)]
pub struct Page {
    /// Pairs that wait for a person.
    desk: Option<Arc<Desk>>,
    #[cfg(feature = "ui")]
    served: Option<(UiOptions, Arc<LiveRun>)>,
}

impl Page {
    /// The page of the flags.
    pub fn of(command: &str, plan: &TrainPlan, desk: Option<Arc<Desk>>) -> Page {
        #[cfg(feature = "ui")]
        let served = plan.ui.clone().map(|options| {
            let configured = |key: &str| plan.config[key].as_str().map(str::to_owned);
            let model = super::summary::name(plan);
            let facts = [
                ("Model", Some(model.clone())),
                ("Dataset", configured("dataset")),
                ("Loss", configured("loss")),
                ("Judge", configured("judge")),
                ("Folder", Some(plan.options.folder().display().to_string())),
            ];
            let facts = facts.into_iter().filter_map(|(name, fact)| Some((name.to_owned(), fact?))).collect();
            (options, Arc::new(LiveRun::new(format!("oaif {command}: {model}"), facts)))
        });
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
        if let Some((options, live)) = self.served {
            let served = Served { desk: self.desk, live: live.clone(), requests: requests.clone() };
            let page = Ui::start(&options, served)?;
            console::page(&page.url());
            let result = run(&mut UiObserver::new(live.clone(), console));
            live.end(match &result {
                Ok(_) => "The run is done. The terminal shows where the result is.".to_owned(),
                Err(error) => format!("The run has ended: {error}"),
            });
            return result;
        }
        let _terminal = self.desk.map(|desk| Labelling::start(desk, requests.clone()));
        run(console)
    }
}
