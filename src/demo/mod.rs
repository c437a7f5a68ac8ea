//! A small synthetic world: posts of a few facts and their summaries, in a language of about 150 words.
//!
//! The quality of a summary can be measured exactly by a program, which makes it possible to train tiny policies and
//! judges and to check the effect of online feedback. The [`oracle`] labels training data and measures results. It
//! never judges in a run; a [`person`], who prefers what the oracle prefers but makes errors, can.

pub mod answers;
pub mod dataset;
pub mod draw;
pub mod exam;
pub mod language;
#[cfg(not(target_arch = "wasm32"))]
pub mod models;
pub mod oracle;
pub mod person;
