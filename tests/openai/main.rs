//! Judges over HTTP: what is promised of good servers, and of those that are not.

mod failures;
mod fleet;
mod judge;
mod limits;
mod secrets;
mod server;
mod verdicts;
