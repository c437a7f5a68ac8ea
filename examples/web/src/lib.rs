//! What the page's worker calls: a training on the browser's GPU, a step at a time.
//!
//! The small world's policy learns to summarise posts as an instruction says: from the preferences of its judge, or of the
//! visitor. An oracle of that world tells how often the policy has become better than it was.

mod kernels;
mod lesson;

use wasm_bindgen::prelude::*;

pub use kernels::check_kernels;
pub use lesson::{Clicks, Lesson};

#[wasm_bindgen(start)]
fn start() {
    console_error_panic_hook::set_once();
}

/// An error as the page shows it: its sentence.
fn told(error: oaif::Error) -> JsValue {
    JsValue::from_str(&error.to_string())
}
