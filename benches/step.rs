//! The cases of `oaif bench step` and `oaif bench decode` on a random model of the size of stories260K. An element is
//! a token row.
//!
//!     cargo bench --bench step

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use oaif::bench::{Case, Shape, Subject, Sweep};
use oaif::gpu::{Gpu, GpuOptions};

fn time(c: &mut Criterion, mut case: Case) {
    let mut group = c.benchmark_group(case.facts.suite);
    if let Some(tokens) = case.facts.tokens {
        group.throughput(Throughput::Elements(tokens as u64 * case.runs_per_time as u64));
    }
    let name = case.facts.case.clone();
    group.bench_function(name, |b| b.iter_custom(|times| case.time(times as u32).unwrap()));
}

fn steps(c: &mut Criterion) {
    let gpu = Gpu::open(&GpuOptions::default()).expect("an adapter");
    let subject = Subject::random(&gpu, &Shape::named(Shape::names()[0]).unwrap()).unwrap();
    subject.steps().for_each(|case| time(c, case.unwrap()));
    subject.sweep(Sweep::Sharing).unwrap().into_iter().for_each(|case| time(c, case));
    Subject::DECODED.into_iter().for_each(|sequences| time(c, subject.decode(sequences).unwrap()));
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = steps
}
criterion_main!(benches);
