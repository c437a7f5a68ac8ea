//! The statistics of `oaif eval`, compared with other programs and with simulated judges whose true win rate is known.

mod files;
mod oracle;
mod simulation;
