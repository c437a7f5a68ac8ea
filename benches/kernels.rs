//! The largest case of every kernel in the table that the tests share. An element is a floating-point operation:
//! Gelem/s is GFLOP/s. Kernels that only move data are counted in bytes.
//!
//!     cargo bench --bench kernels -- attention

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use oaif::gpu::{Gpu, GpuOptions, PlanOptions, Work};
use oaif::ops::{Case, all_cases};

/// For each kernel the case with the most work.
fn largest(gpu: &Gpu) -> BTreeMap<&'static str, (Case, Work)> {
    let mut largest: BTreeMap<&'static str, (Case, Work)> = BTreeMap::new();
    for case in all_cases() {
        let (recorder, _, live) = case.recording(gpu).unwrap();
        let work = recorder.work(&live.extents);
        let known = largest.get(case.kernel).map_or(-1.0, |(_, w)| w.flops + w.bytes);
        if work.flops + work.bytes > known {
            largest.insert(case.kernel, (case, work));
        }
    }
    largest
}

fn kernels(c: &mut Criterion) {
    let gpu = Gpu::open(&GpuOptions::default()).expect("an adapter");
    let cases = largest(&gpu.measuring());
    for (kernel, (case, work)) in cases {
        let (plan, _, live) = case.plan(&gpu, PlanOptions::default()).unwrap();
        let mut group = c.benchmark_group(kernel);
        group.throughput(match work.flops as u64 {
            0 => Throughput::Bytes(work.bytes as u64),
            flops => Throughput::Elements(flops),
        });
        group.bench_function(&case.shape, |bencher| {
            // All repetitions in as few submits as the time cap allows, read back once.
            bencher.iter_custom(|times| {
                let started = Instant::now();
                plan.submit(&live, times as u32).unwrap().wait().unwrap();
                started.elapsed()
            })
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = kernels
}
criterion_main!(benches);
