//! Conversion of panics to errors, for libraries that panic on damaged files.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a call whose panics are converted to errors. The process's panic hook prints the
/// panic's message first. A library must not change the hook, but a program's hook can call this function and skip the
/// message.
pub fn panics_are_caught() -> bool {
    CAUGHT.get()
}

/// Returns the result of `call`, or the payload of its panic.
pub(crate) fn caught_payload<T>(call: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    let outer = CAUGHT.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    CAUGHT.set(outer);
    result
}

/// Returns the result of `call`, or the message of its panic.
#[cfg(feature = "parquet")]
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    caught_payload(call).map_err(|panic| message(&*panic).to_owned())
}

/// The message of a panic.
pub(crate) fn message(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "a panic",
    }
}
