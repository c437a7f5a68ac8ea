//! The statistics of `oaif eval`, against other programs' figures and against judges whose truth is known.

mod files;
mod oracle;
mod simulation;
