//! Signals: the first one ends a run after its step, with a checkpoint; the second one ends the program.

#[cfg(unix)]
use std::sync::atomic::AtomicBool;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Once, OnceLock};

use super::console::say;
use crate::train::Requests;

/// What the first signal asks to stop.
pub(super) fn requests() -> Arc<Requests> {
    static REQUESTS: OnceLock<Arc<Requests>> = OnceLock::new();
    REQUESTS.get_or_init(Arc::default).clone()
}

/// 128 and the number of the first signal.
static CODE: AtomicU8 = AtomicU8::new(130);

/// The exit code of a run that was interrupted: 130 by SIGINT (Ctrl-C), 143 by SIGTERM, 129 by SIGHUP, 138 by SIGUSR1.
pub(super) fn exit_code() -> u8 {
    CODE.load(Ordering::Relaxed)
}

/// What the first signal makes the program do.
static WHAT: OnceLock<&str> = OnceLock::new();

/// Begins to listen. Where that cannot be, a signal ends the program as usual; the last checkpoint stays.
pub(super) fn catch() {
    catch_saying("finishing this step, then saving a checkpoint");
}

/// The same, for what saves no checkpoints: the user is told `what` happens.
pub(super) fn catch_saying(what: &'static str) {
    let _ = WHAT.set(what);
    static LISTENING: Once = Once::new();
    LISTENING.call_once(listen);
}

fn received(number: u8, name: &str) {
    let code = 128 + number;
    if requests().stop.swap(true, Ordering::Relaxed) {
        std::process::exit(code.into());
    }
    CODE.store(code, Ordering::Relaxed);
    let what = WHAT.get().copied().unwrap_or_default();
    say(format_args!("oaif: {name}: {what} (once more to stop at once)"));
}

#[cfg(unix)]
fn listen() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
    // What schedulers can send before they take a machine away: `sbatch --signal=USR1@60`.
    let mut wanted = vec![SIGINT, SIGTERM, SIGUSR1];
    // `nohup` means that the run outlives its terminal.
    if !is_ignored(SIGHUP) {
        wanted.push(SIGHUP);
    }
    // With a handler, a file above the limit (`ulimit -f`) is an error of the write and not the program's end.
    let _ = signal_hook::flag::register(libc::SIGXFSZ, std::sync::Arc::new(AtomicBool::new(false)));
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
    // SAFETY: without a new action the call changes nothing and writes the present one, for which there is room.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(not(unix))]
fn listen() {
    let _ = ctrlc::set_handler(|| received(2, "Ctrl-C"));
}
