//! Evaluation: policy A against policy B under a judge, and the statistics of `oaif eval` as pure functions of
//! comparisons.
//!
//! | file | contents |
//! |---|---|
//! | `evaluation` | the whole evaluation: files, sampling, judging, results |
//! | `responses` | a policy's responses to prompts, and their log-probabilities |
//! | `judging` | a judge's verdicts on pairs of responses, in both orders |
//! | `result` | all results of an evaluation, with the printed sentence and table |
//! | `comparison` | the outcome for a prompt; wins, ties and losses; win rates in buckets of length |
//! | `interval` | Wilson and normal intervals of a win rate |
//! | `bootstrap` | percentile and BCa bootstrap over prompts |
//! | `length_control` | the win rate at equal lengths, for any two policies |
//! | `alpaca_eval` | AlpacaEval's win rate, standard error and length-controlled win rate |
//! | `agreement` | Cohen's κ, order flips, biases towards a position or a length |
//! | `ensemble` | the agreement of the members of an ensemble of judges |
//! | `diversity` | distinct-n, repetition and lengths of responses |
//! | `judged` | the results of a benchmark's file of judgements |
//! | `files` | AlpacaEval, MT-Bench and Arena-Hard files |
//! | `logistic`, `normal`, `random` | numerical building blocks |

pub mod agreement;
pub mod alpaca_eval;
pub mod bootstrap;
pub mod comparison;
pub mod diversity;
pub mod ensemble;
#[cfg(not(target_arch = "wasm32"))]
pub mod evaluation;
pub mod files;
pub mod interval;
pub mod judged;
pub mod judging;
pub mod length_control;
pub mod logistic;
pub mod normal;
pub mod random;
pub mod responses;
pub mod result;

pub use interval::wilson_interval;
