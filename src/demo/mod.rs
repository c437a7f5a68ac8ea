//! A small world of our own: posts of a few facts and their summaries, in a language of some hundred and fifty words.
//!
//! A program can measure a summary exactly here, which makes the world a place to train tiny policies and judges
//! for, and to check what online feedback does to them. The [`oracle`] labels training data and judges results; it
//! never judges in a run; a [`person`] of its taste, who errs, may.

pub mod answers;
pub mod dataset;
pub mod draw;
pub mod exam;
pub mod language;
#[cfg(not(target_arch = "wasm32"))]
pub mod models;
pub mod oracle;
pub mod person;
