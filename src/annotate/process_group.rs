//! The processes that annotators have started, so that none of them outlives the program.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::Mutex;

static RUNNING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// A process group that is running; no longer, once this is dropped.
pub(super) struct Running(u32);

impl Running {
    /// The group of the process `id`, which leads it.
    pub fn new(id: u32) -> Running {
        RUNNING.lock().unwrap_or_else(|e| e.into_inner()).insert(id);
        Running(id)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.lock().unwrap_or_else(|e| e.into_inner()).remove(&self.0);
    }
}

/// Kills every group that is running, for a program that ends at once.
pub(crate) fn kill_all() {
    for id in RUNNING.lock().unwrap_or_else(|e| e.into_inner()).iter() {
        kill(*id);
    }
}

/// Kills the process `id` with all of its group.
pub(super) fn kill(id: u32) {
    // The standard library signals single processes only; the shell's `kill` knows groups.
    let mut command = match cfg!(windows) {
        true => Command::new("taskkill"),
        false => Command::new("sh"),
    };
    match cfg!(windows) {
        true => command.args(["/F", "/T", "/PID", &id.to_string()]),
        false => command.args(["-c", &format!("kill -s KILL -- -{id}")]),
    };
    // A process that has just ended by itself is as good as killed.
    let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}
