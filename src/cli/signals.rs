//! Signals: the first one ends a run after the current step, with a checkpoint; the second one exits at once.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Once, OnceLock};

use super::console::say;
use crate::train::Requests;

/// The requests that the first signal sets.
pub(super) fn requests() -> Arc<Requests> {
    static REQUESTS: OnceLock<Arc<Requests>> = OnceLock::new();
    REQUESTS.get_or_init(Arc::default).clone()
}

/// 128 plus the number of the first signal.
static CODE: AtomicU8 = AtomicU8::new(130);

/// The exit code of a run that was interrupted: 130 by SIGINT (Ctrl-C), 143 by SIGTERM, 129 by SIGHUP, 138 by SIGUSR1.
pub(super) fn exit_code() -> u8 {
    CODE.load(Ordering::Relaxed)
}

/// The message of what happens after the first signal.
static MESSAGE: OnceLock<&str> = OnceLock::new();

/// Installs the signal handlers. If that fails, a signal ends the program as usual; the last checkpoint is kept.
pub(super) fn catch() {
    catch_with_message("finishing this step, then saving a checkpoint");
}

/// Like [`catch`], with another message `what`, for commands that save no checkpoints.
pub(super) fn catch_with_message(what: &'static str) {
    let _ = MESSAGE.set(what);
    static LISTENING: Once = Once::new();
    LISTENING.call_once(listen);
}

/// Makes writing above the file size limit (`ulimit -f`) an error instead of the end of the program.
#[cfg(unix)]
pub(super) fn make_size_limit_an_error() {
    let _ = signal_hook::flag::register(libc::SIGXFSZ, Arc::new(AtomicBool::new(false)));
}

#[cfg(not(unix))]
pub(super) fn make_size_limit_an_error() {}

fn received(number: u8, name: &str) {
    let code = 128 + number;
    // The page and the labelling in the terminal set `stop` too: after them, a first signal still waits for the checkpoint.
    static SIGNALLED: AtomicBool = AtomicBool::new(false);
    if SIGNALLED.swap(true, Ordering::Relaxed) {
        std::process::exit(code.into());
    }
    requests().stop.store(true, Ordering::Relaxed);
    CODE.store(code, Ordering::Relaxed);
    let what = MESSAGE.get().copied().unwrap_or_default();
    say(format_args!("oaif: {name}: {what} (repeat to stop at once)"));
}

#[cfg(unix)]
fn listen() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
    // Schedulers can send SIGUSR1 before the end of a job: `sbatch --signal=USR1@60`.
    let mut wanted = vec![SIGINT, SIGTERM, SIGUSR1];
    // `nohup` means that the run outlives its terminal.
    if !is_ignored(SIGHUP) {
        wanted.push(SIGHUP);
    }
    let Ok(mut signals) = signal_hook::iterator::Signals::new(wanted) else { return };
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let name = match signal {
                SIGTERM => "SIGTERM",
                SIGHUP => "SIGHUP",
                SIGUSR1 => "SIGUSR1",
                _ => "Ctrl-C",
            };
            received(signal as u8, name);
        }
    });
}

#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: with a null new action the call changes nothing and writes the current one into `action`.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(not(unix))]
fn listen() {
    let _ = ctrlc::set_handler(|| received(2, "Ctrl-C"));
}
