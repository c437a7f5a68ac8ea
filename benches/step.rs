//! The cases of `oaif bench step` and `oaif bench decode` for a random model of the size of stories260K. An element is
//! a token row.
//!
//!     cargo bench --bench step

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use oaif::Wait;
use oaif::unstable::bench::{Case, Held, SEQUENCES, Shape, Source, Subject, Sweep, decode};
use oaif::unstable::gpu::{Gpu, GpuOptions};

fn time(c: &mut Criterion, mut case: Case) {
    let mut group = c.benchmark_group(case.facts.suite);
    if let Some(tokens) = case.facts.tokens {
        group.throughput(Throughput::Elements(tokens as u64 * case.runs_per_time as u64));
    }
    let name = case.facts.case.clone();
    group.bench_function(name, |b| b.iter_custom(|times| case.time(times as u32).unwrap()));
}

fn steps(c: &mut Criterion) {
    let gpu = Gpu::open(&GpuOptions::default()).wait().expect("a GPU");
    let shape = Shape::parse(Shape::names()[0]).unwrap();
    let batch = shape.batch;
    let subject = Subject::new(&gpu, &Source::Random(shape), Held::Trained).unwrap();
    let recipes = oaif::unstable::bench::steps(&[batch]).into_iter().chain(Sweep::Sharing.recipes(batch));
    recipes.chain(decode(&SEQUENCES, None)).for_each(|recipe| time(c, recipe.make(&subject).unwrap()));
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
