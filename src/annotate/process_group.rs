//! The processes that annotators have started, so that none of them outlives the program.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

static RUNNING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// A process group that is running; no longer, once this is dropped.
pub(super) struct Running {
    id: u32,
    guard: Option<Child>,
}

impl Running {
    /// The group of the process `id`, which leads it.
    pub fn new(id: u32) -> Running {
        RUNNING.lock().unwrap_or_else(|e| e.into_inner()).insert(id);
        Running { id, guard: guard(id) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(guard) = &mut self.guard {
            let _ = guard.kill();
            let _ = guard.wait();
        }
        RUNNING.lock().unwrap_or_else(|e| e.into_inner()).remove(&self.id);
    }
}

/// A process that kills the group should this program be killed, which closes the pipe that it reads from.
#[cfg(unix)]
fn guard(id: u32) -> Option<Child> {
    use std::os::unix::process::CommandExt;
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("read -r end; kill -s KILL -- -{id}")]).process_group(0);
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
}

#[cfg(not(unix))]
fn guard(_: u32) -> Option<Child> {
    None
}

/// Kills every group that is running, for a program that ends at once.
#[cfg(feature = "cli")]
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
