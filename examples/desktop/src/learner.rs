//! The training thread: it samples two responses to each prompt, waits for the picks, and takes a step.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use oaif::data::{Columns, Prompt, read_prompts};
use oaif::gpu::Gpu;
use oaif::judge::{Desk, Human};
use oaif::model::LoraConfig;
use oaif::preference::PreferenceLoss;
use oaif::train::{
    AlignOptions, Control, Observer, Policy, Requests, ScheduleKind, StepReport, TrainOptions, Trainer,
};
use oaif::{Error, Wait};

use crate::Arguments;
use crate::chat;
use crate::shared::{Point, Shared};

/// The folder in the working directory to which the adapter is saved.
const ADAPTER: &str = "desktop-adapter";
/// How often a paused learner checks for requests.
const LOOK: Duration = Duration::from_millis(50);

/// The prompts used if no file is given.
const PROMPTS: [&str; 6] = [
    "Once upon a time, there was a little girl named Lily.",
    "One day, a boy named Tim went to the park.",
    "Once upon a time, there was a big brown bear.",
    "One day, a cat and a dog met in the garden.",
    "There was once a small boat on a big lake.",
    "Mia wanted to bake a cake for her mom.",
];

/// The window's interface to the two threads.
pub struct Learner {
    /// Pairs that wait for a pick.
    pub desk: Arc<Desk>,
    requests: Arc<Requests>,
    hidden: Arc<AtomicBool>,
    prompts: Option<Sender<String>>,
    thread: Option<JoinHandle<()>>,
}

impl Learner {
    /// Starts to load the model; errors are reported through `shared`.
    pub fn start(arguments: Arguments, gpu: Gpu, shared: Arc<Shared>) -> Learner {
        // A pick can be undone until the next one, or for this long. The self-test undoes none.
        let hold = Duration::from_secs(if arguments.demo.is_some() { 0 } else { 2 });
        let desk = Arc::new(Desk::new().holding(hold));
        let window = shared.clone();
        desk.on_change(move || {
            window.redraw();
            true
        });
        let requests = Arc::new(Requests::new());
        let hidden = Arc::new(AtomicBool::new(false));
        let (send, prompts) = channel();
        let worker = Worker {
            arguments,
            gpu,
            desk: desk.clone(),
            requests: requests.clone(),
            hidden: hidden.clone(),
            shared: shared.clone(),
        };
        let work = move || {
            worker.shared.work("learner", || worker.run(prompts));
            worker.end();
        };
        let thread = thread::Builder::new().name("learner".into()).spawn(work);
        let thread = thread.map_err(|error| shared.error(format!("cannot start a thread: {error}"))).ok();
        Learner { desk, requests, hidden, prompts: Some(send), thread }
    }

    /// Sends a prompt to the chat.
    pub fn ask(&self, prompt: String) {
        if let Some(prompts) = &self.prompts {
            // If the chat thread has ended, the window already shows why.
            let _ = prompts.send(prompt);
        }
    }

    pub fn pauses(&self) -> bool {
        self.requests.pauses()
    }

    /// Pauses or resumes. A step that waits for picks is cancelled and taken again later.
    pub fn pause(&self, pause: bool) {
        self.requests.ask_to_pause(pause);
        if pause {
            self.requests.ask_to_cancel();
        }
    }

    /// Sets whether the window is hidden. While it is, no steps are taken and the memory is released.
    pub fn hide(&self, hidden: bool) {
        if hidden != self.hidden.swap(hidden, Relaxed) && hidden {
            self.requests.ask_to_cancel();
        }
    }

    /// Requests that the adapter is saved, between two steps.
    pub fn save(&self) {
        self.requests.ask_to_save();
        self.requests.ask_to_cancel();
    }
}

/// Both threads must end before the window's device does.
impl Drop for Learner {
    fn drop(&mut self) {
        self.prompts = None;
        self.requests.ask_to_stop();
        self.requests.ask_to_cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The state of the training thread.
struct Worker {
    arguments: Arguments,
    gpu: Gpu,
    desk: Arc<Desk>,
    requests: Arc<Requests>,
    hidden: Arc<AtomicBool>,
    shared: Arc<Shared>,
}

impl Worker {
    fn run(&self, prompts: Receiver<String>) -> oaif::Result<()> {
        self.shared.phase("loading the model");
        let rows = match &self.arguments.prompts {
            Some(path) => read_prompts(path, &Columns::default())?,
            None => PROMPTS.map(Prompt::from).into(),
        };
        // Without an end: the training ends with the window.
        let train = TrainOptions::default().batch_size(2).max_steps(usize::MAX).lora(LoraConfig::new(8));
        let train = train.learning_rate(1e-3).schedule(ScheduleKind::Constant);
        let align = AlignOptions::new(PreferenceLoss::Dpo { beta: 0.1 }).max_new_tokens(32);
        let policy = Policy::load(&self.gpu, &self.arguments.model, &train).wait()?;
        self.shared.phase("compiling kernels");
        let (chatting, person) = (policy.clone(), Human::new(self.desk.clone()));
        let mut trainer = Trainer::online(policy, &rows, person, &train, &align).wait()?;
        let shared = &*self.shared;
        shared.update(|status| status.memory = self.gpu.memory().total);
        thread::scope(|scope| {
            scope.spawn(move || shared.work("chat", || chat::serve(&chatting, &prompts, shared)));
            // Report the end at once: the scope waits for the chat thread.
            shared.work("learner", || self.train(&mut trainer));
            self.end();
        });
        Ok(())
    }

    fn end(&self) {
        self.shared.update(|status| (status.ended, status.phase) = (true, "ended".into()));
    }

    /// Takes steps until the window is closed.
    fn train(&self, trainer: &mut Trainer<'_>) -> oaif::Result<()> {
        let mut observer = Teller { shared: &self.shared };
        while !self.requests.stops() {
            if self.requests.take_save() {
                self.save(trainer);
            }
            if self.hidden.load(Relaxed) {
                self.rest_while_hidden()?;
                continue;
            }
            if self.requests.pauses() {
                self.shared.phase("paused");
                thread::sleep(LOOK);
                continue;
            }
            let mut control = Control { observer: &mut observer, requests: &self.requests };
            match trainer.step_with(&mut control).wait() {
                Ok(Some(report)) => self.report(&report),
                Ok(None) => unreachable!("the run has no last step"),
                // Cancelled by a request; the loop checks which one.
                Err(Error::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Releases the memory until the window is visible again. The next step allocates it again.
    fn rest_while_hidden(&self) -> oaif::Result<()> {
        self.gpu.release_memory().wait()?;
        self.shared.update(|status| status.memory = self.gpu.memory().total);
        while self.hidden.load(Relaxed) && !self.requests.stops() {
            self.shared.phase("hidden");
            thread::sleep(LOOK);
        }
        Ok(())
    }

    fn report(&self, report: &StepReport) {
        self.shared.update(|status| {
            status.steps = report.step;
            status.memory = self.gpu.memory().total;
            if let Some(loss) = report.loss {
                status.curve.push(Point { loss, margin: report.margin() });
            }
        });
    }

    fn save(&self, trainer: &Trainer<'_>) {
        self.shared.phase("saving");
        let dir = std::env::current_dir().unwrap_or_default().join(ADAPTER);
        let policy = trainer.policy();
        match policy.save(&dir).wait() {
            Ok(()) => {
                let (steps, dir) = (trainer.steps_done(), dir.display());
                self.shared.update(|status| {
                    status.note = Some(format!("Saved the adapter after step {steps} in {dir}"));
                });
            }
            Err(error) => self.shared.error(error),
        }
    }
}

/// Reports the phases of a step to the window.
struct Teller<'a> {
    shared: &'a Shared,
}

impl Observer for Teller<'_> {
    fn phase(&mut self, name: &str) {
        self.shared.phase(if name == "judging" { "waiting for your picks" } else { name });
    }

    fn warning(&mut self, text: &str) {
        self.shared.update(|status| status.note = Some(text.to_owned()));
    }
}
