//! The measured ceilings (peak rates) of a GPU, for comparison with every kernel's speed.

use std::time::Instant;

use crate::Wait;
use crate::error::Result;
use crate::gpu::{Arena, Category, Format, Gpu, Live, Plan, PlanOptions, Recorder};
use crate::ops::{multiply_add, residual_add};

/// A GPU's measured ceilings.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Ceilings {
    /// Independent f32 multiply-adds, in GFLOP/s (a multiply-add is two operations).
    pub gflops: f64,
    /// Reading and writing large buffers, in GB/s, with a kernel or a copy, whichever is faster.
    pub gigabytes_per_second: f64,
    /// The time for an additional launch in a submit, in microseconds.
    pub launch_us: f64,
    /// The time for a submit and waiting for its end, in microseconds.
    pub submit_us: f64,
}

/// Returns the seconds of the fastest of a few runs.
fn fastest_of(run: impl Fn() -> Result<()>) -> Result<f64> {
    run()?;
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        run()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

fn fastest(plan: &Plan) -> Result<f64> {
    fastest_of(|| plan.run(&Live::default()).wait().map(drop))
}

impl Ceilings {
    /// Measures for about a second.
    pub fn measure(gpu: &Gpu) -> Result<Ceilings> {
        let input = |n: usize| Ok(gpu.buffer("ceiling input", Category::Workspace, n as u64 * 4)?.region());
        let plan = |r: Recorder| Plan::new(gpu, r, &Arena::new(), PlanOptions::default()).wait();

        let few = input(64)?;
        let launches = |n: usize| {
            let mut r = Recorder::new(gpu);
            let mut x = r.bind(&few, 64, 1, Format::F32);
            for _ in 0..n {
                x = multiply_add(&mut r, x, 1);
            }
            plan(r)
        };
        let (one, many) = (fastest(&launches(1)?)?, fastest(&launches(201)?)?);

        // More rounds until a run takes 50 ms, so that the time for the submit does not matter.
        let lanes = 1 << 16;
        let x = input(lanes)?;
        let mut rounds = 64;
        let gflops = loop {
            let mut r = Recorder::new(gpu);
            let x = r.bind(&x, lanes, 1, Format::F32);
            multiply_add(&mut r, x, rounds);
            let seconds = (fastest(&plan(r)?)? - one).max(1e-9);
            if seconds > 0.02 || rounds >= 1 << 20 {
                break 64.0 * rounds as f64 * lanes as f64 / seconds * 1e-9;
            }
            rounds *= 4;
        };

        let words = (gpu.limits().binding / 4).min(16 << 20) as usize / 1024 * 1024;
        let (a, b) = (input(words)?, input(words)?);
        let copy = fastest_of(|| gpu.copy(&a, &b).and_then(|()| gpu.idle().wait()))?;
        let mut r = Recorder::new(gpu);
        let (rows, cols) = (words / 1024, 1024);
        let (a, b) = (r.bind(&a, rows, cols, Format::F32), r.bind(&b, rows, cols, Format::F32));
        residual_add(&mut r, a, b)?;
        let kernel = fastest(&plan(r)?)?;
        // A copied word is read and written; for a sum of two, three words are moved.
        let gigabytes_per_second = [(8.0, copy), (12.0, kernel)]
            .map(|(bytes, seconds)| bytes * words as f64 / (seconds - one).max(1e-9) * 1e-9)
            .into_iter()
            .fold(0.0, f64::max);
        let launch_us = (many - one).max(0.0) / 200.0 * 1e6;
        Ok(Ceilings { gflops, gigabytes_per_second, launch_us, submit_us: one * 1e6 })
    }
}
