//! The functions that the page's worker calls: a training on the browser's GPU, step by step.
//!
//! The small world's policy learns to write summaries that follow an instruction, from the preferences of a judge model
//! or of the visitor. The oracle of that world measures how much the policy has improved.

mod kernels;
mod lesson;

use wasm_bindgen::prelude::*;

pub use kernels::{check_kernels, kernel_sources};
pub use lesson::{Clicks, Lesson};

#[wasm_bindgen(start)]
fn start() {
    console_error_panic_hook::set_once();
}

/// An error as shown by the page: a sentence with a way out that a visitor has.
fn js_error(error: oaif::Error) -> JsValue {
    let sentence = match error {
        oaif::Error::DeviceLost(why) => format!(
            "the GPU was lost ({}): if it happens again, close other tabs, or update the browser and the driver",
            why.trim()
        ),
        oaif::Error::Limit { .. } | oaif::Error::OutOfMemory { .. } => {
            format!(
                "{error}; in a browser, close other tabs and programs that use the GPU, or use another machine"
            )
        }
        // Here the reason is a JavaScript error with its stack trace.
        oaif::Error::Gpu { what, why } => format!(
            "the browser rejected {}: {}",
            what,
            why.lines().next().unwrap_or_default().trim_start_matches("JsValue(")
        ),
        other => other.to_string(),
    };
    JsValue::from_str(&without_folders(&sentence))
}

/// Replaces paths such as `memory:0/policy/config.json` by those relative to the page, `policy/config.json`.
fn without_folders(text: &str) -> String {
    let mut parts = text.split("memory:");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('/').map_or(part, |(_, path)| path))
}
