//! Panics of libraries that are known to panic on damaged files: errors here.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a call whose panic becomes an error. Before that, a panic's own message is printed by
/// the process's panic hook, which is the program's and not a library's to change: a program that asks here can leave
/// it out.
pub fn panics_are_caught() -> bool {
    CAUGHT.get()
}

/// What `call` returns, or what it panicked with.
pub(crate) fn caught_any<T>(call: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    let outer = CAUGHT.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    CAUGHT.set(outer);
    result
}

/// What `call` returns, or the message of its panic.
#[cfg(feature = "parquet")]
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    caught_any(call).map_err(|panic| message(&*panic).to_owned())
}

/// What a panic says.
pub(crate) fn message(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "a panic",
    }
}
