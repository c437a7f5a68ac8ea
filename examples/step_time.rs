//! Estimates the time of a step on several ranks from the time on one rank and the speed of the network: the model of
//! docs/explanation/several-processes.md, as a table up to 1,000 ranks.
//!
//! ```text
//! cargo run --example step_time -- WORK_MS PARAMETERS GBIT_PER_S LATENCY_MS [ANSWERS_KB [MESSAGE_US]]
//! ```

use std::env::args;

/// Numbers per bucket of the gradient exchange, see src/optim/gradients.rs.
const BUCKET: f64 = (1 << 20) as f64;
/// Small exchanges per step: samples, verdicts, results, times.
const GATHERS: f64 = 8.0;

/// The properties of a network.
struct Network {
    /// Bytes per second that one rank sends, and receives.
    bandwidth: f64,
    /// Seconds until the first byte arrives.
    latency: f64,
    /// Overhead per message in seconds, for the sender and the receiver.
    message: f64,
}

impl Network {
    /// Time in seconds for an all-to-all exchange of n ranks, in which each rank sends `bytes` in total.
    fn all_to_all(&self, ranks: f64, bytes: f64) -> f64 {
        let others = ranks - 1.0;
        self.latency + others * self.message + bytes / self.bandwidth
    }

    /// Time in seconds of an all-reduce of `numbers` numbers of `size` bytes: reduce-scatter and all-gather, in
    /// buckets.
    fn sum(&self, ranks: f64, numbers: f64, size: f64) -> f64 {
        let share = (ranks - 1.0) / ranks;
        let buckets = (numbers / BUCKET).ceil();
        2.0 * buckets * self.all_to_all(ranks, size * numbers / buckets * share)
    }
}

fn main() {
    let numbers: Vec<f64> = args().skip(1).map(|text| text.parse().expect("a number")).collect();
    let [work, parameters, gbit, latency, rest @ ..] = &numbers[..] else {
        eprintln!("step_time WORK_MS PARAMETERS GBIT_PER_S LATENCY_MS [ANSWERS_KB [MESSAGE_US]]");
        std::process::exit(2);
    };
    let network = Network {
        bandwidth: gbit * 1e9 / 8.0,
        latency: latency / 1e3,
        message: rest.get(1).unwrap_or(&10.0) / 1e6,
    };
    // The size of a rank's responses, verdicts and results; every rank receives all of them.
    let answers = rest.first().unwrap_or(&20.0) * 1e3;
    println!(
        "{:>6} {:>12} {:>12} {:>10} {:>12} {:>10}",
        "ranks", "f32, ms", "bf16, ms", "work", "rows, f32", "rows, bf16"
    );
    for ranks in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000] {
        let n = f64::from(ranks);
        let small = if ranks == 1 {
            0.0
        } else {
            GATHERS * network.all_to_all(n, 0.0) + (n - 1.0) * answers / network.bandwidth
        };
        let step = |size: f64| {
            let sum = if ranks == 1 { 0.0 } else { network.sum(n, *parameters, size) };
            work + 1e3 * (small + sum)
        };
        let (f32, bf16) = (step(4.0), step(2.0));
        // Rows per second, relative to one rank alone.
        let faster = |ms: f64| n * work / ms;
        println!(
            "{ranks:>6} {f32:>12.0} {bf16:>12.0} {:>9.0}% {:>12.1} {:>10.1}",
            100.0 * work / f32,
            faster(f32),
            faster(bf16)
        );
    }
}
