//! The cases of `oaif bench kernels`. An element is a floating-point operation: Gelem/s is GFLOP/s. Kernels that only
//! move data are counted in bytes.
//!
//!     cargo bench --bench kernels -- attention

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use oaif::Wait;
use oaif::unstable::gpu::{Gpu, GpuOptions};

fn kernels(c: &mut Criterion) {
    let gpu = Gpu::open(&GpuOptions::default()).wait().expect("a GPU");
    for recipe in oaif::unstable::bench::kernels(&gpu).unwrap() {
        let mut case = recipe.make(&gpu).unwrap();
        let mut group = c.benchmark_group(&case.facts.case);
        group.throughput(match case.facts.flops.unwrap_or(0.0) as u64 {
            0 => Throughput::Bytes(case.facts.bytes.unwrap_or(0.0) as u64),
            flops => Throughput::Elements(flops),
        });
        let shape = case.facts.shape.clone();
        group.bench_function(shape, |b| b.iter_custom(|times| case.time(times as u32).unwrap()));
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
