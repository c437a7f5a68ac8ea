//! What the page's worker calls: a training on the browser's GPU, a step at a time.
//!
//! The small world's policy learns to summarise posts as an instruction says: from the preferences of its judge, or of the
//! visitor. An oracle of that world tells how often the policy has become better than it was.

mod kernels;
mod lesson;

use wasm_bindgen::prelude::*;

pub use kernels::{check_kernels, kernel_sources};
pub use lesson::{Clicks, Lesson};

#[wasm_bindgen(start)]
fn start() {
    console_error_panic_hook::set_once();
}

/// An error as the page shows it: its sentence, with a way out that a visitor has.
fn told(error: oaif::Error) -> JsValue {
    let sentence = match error {
        oaif::Error::DeviceLost(why) => format!(
            "the browser took the GPU away ({}): if it does so again, close other tabs, or update browser and driver",
            why.trim()
        ),
        oaif::Error::Limit { .. } | oaif::Error::OutOfMemory { .. } => {
            format!("{error}; here, close other tabs and programs that use the GPU, or take another machine")
        }
        // Here the reason is a JavaScript error with its trace.
        oaif::Error::Gpu { what, why } => format!(
            "the browser refused {}: {}",
            what,
            why.lines().next().unwrap_or_default().trim_start_matches("JsValue(")
        ),
        other => other.to_string(),
    };
    JsValue::from_str(&without_folders(&sentence))
}

/// `memory:0/policy/config.json` as it is called where the page lies: `policy/config.json`.
fn without_folders(text: &str) -> String {
    let mut parts = text.split("memory:");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('/').map_or(part, |(_, path)| path))
}
