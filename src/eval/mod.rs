//! Judging results: policy A against B under a judge, and the statistics of `oaif eval` as pure functions of comparisons.
//!
//! | file | what it computes |
//! |---|---|
//! | `answers` | a policy's answers to prompts, and their log-probabilities |
//! | `judging` | a judge's verdicts on pairs of answers, in both orders |
//! | `result` | all figures of an evaluation, the sentence and the table that are printed |
//! | `comparison` | what a prompt's comparison gave; wins, ties and losses; win rates inside buckets of length |
//! | `interval` | Wilson and normal-theory intervals of a win rate |
//! | `bootstrap` | percentile and BCa bootstrap over prompts |
//! | `length_control` | the win rate at equal lengths, for any two policies |
//! | `alpaca_eval` | AlpacaEval's win rate, standard error and length-controlled win rate |
//! | `agreement` | Cohen's κ, order flips, preferences for a position or a length |
//! | `ensemble` | how far the members of an ensemble of judges agree |
//! | `diversity` | distinct-n, repetition and lengths of answers |
//! | `judged` | the figures of a benchmark's file of judgements |
//! | `files` | AlpacaEval, MT-Bench and Arena-Hard files |
//! | `logistic`, `normal`, `random` | what the above are made of |

pub mod agreement;
pub mod alpaca_eval;
pub mod answers;
pub mod bootstrap;
pub mod comparison;
pub mod diversity;
pub mod ensemble;
pub mod files;
pub mod interval;
pub mod judged;
pub mod judging;
pub mod length_control;
pub mod logistic;
pub mod normal;
pub mod random;
pub mod result;

pub use interval::wilson_interval;
