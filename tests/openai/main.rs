//! Judges over HTTP, with servers that work and servers that fail.

mod failures;
mod fleet;
mod judge;
mod limits;
mod secrets;
mod server;
mod verdicts;
