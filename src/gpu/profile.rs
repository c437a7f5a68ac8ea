//! Profiles of GPU time: a table by kernel, and a trace for Perfetto.

use std::collections::BTreeMap;

/// All launches of one kernel.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct KernelTime {
    /// The number of launches.
    pub launches: u64,
    /// Time on the GPU.
    pub milliseconds: f64,
    /// Floating-point operations.
    pub flops: f64,
    /// Bytes read and written.
    pub bytes: f64,
}

struct Event {
    kernel: &'static str,
    phase: &'static str,
    start_ns: f64,
    duration_ns: f64,
}

impl Clone for Event {
    fn clone(&self) -> Event {
        Event { ..*self }
    }
}

/// The trace keeps the first launches, up to this many.
const MAX_EVENTS: usize = 200_000;

/// Launches timed so far.
#[derive(Clone, Default)]
pub struct Profile {
    /// By kernel.
    pub kernels: BTreeMap<&'static str, KernelTime>,
    events: Vec<Event>,
}

impl Profile {
    pub(super) fn add(
        &mut self,
        kernel: &'static str,
        phase: &'static str,
        start_ns: f64,
        duration_ns: f64,
        flops: f64,
        bytes: f64,
    ) {
        let entry = self.kernels.entry(kernel).or_default();
        entry.launches += 1;
        entry.milliseconds += duration_ns * 1e-6;
        entry.flops += flops;
        entry.bytes += bytes;
        if self.events.len() < MAX_EVENTS {
            self.events.push(Event { kernel, phase, start_ns, duration_ns });
        }
    }

    /// Returns a table of the kernels, slowest first: launches, milliseconds, share, GFLOP/s, GB/s.
    pub fn table(&self) -> String {
        let total: f64 = self.kernels.values().map(|k| k.milliseconds).sum();
        let mut rows: Vec<_> = self.kernels.iter().collect();
        rows.sort_by(|a, b| b.1.milliseconds.total_cmp(&a.1.milliseconds));
        let mut out = format!(
            "{:<28} {:>9} {:>11} {:>7} {:>9} {:>8}\n",
            "kernel", "launches", "ms", "share", "GFLOP/s", "GB/s"
        );
        for (name, k) in rows {
            let share = 100.0 * k.milliseconds / total.max(1e-9);
            let seconds = k.milliseconds.max(1e-9) * 1e-3;
            out.push_str(&format!(
                "{name:<28} {:>9} {:>11.2} {share:>6.1}% {:>9.2} {:>8.2}\n",
                k.launches,
                k.milliseconds,
                k.flops / seconds * 1e-9,
                k.bytes / seconds * 1e-9
            ));
        }
        out
    }

    /// Returns the launches as Chrome trace events (JSON), which <https://ui.perfetto.dev> opens.
    pub fn trace(&self) -> String {
        let origin = self.events.first().map_or(0.0, |e| e.start_ns);
        let events: Vec<_> = self
            .events
            .iter()
            .map(|e| {
                serde_json::json!({
                    "name": e.kernel, "cat": e.phase, "ph": "X", "pid": 1, "tid": 1,
                    "ts": (e.start_ns - origin) * 1e-3, "dur": e.duration_ns * 1e-3,
                })
            })
            .collect();
        serde_json::json!({ "traceEvents": events }).to_string()
    }
}
