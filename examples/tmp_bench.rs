use oaif::gpu::*;
use std::time::Instant;
fn main() {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let gpu =
        Gpu::open(&GpuOptions { checked: std::env::var("CHECKED").is_ok(), ..Default::default() }).unwrap();
    for case in oaif::ops::all_cases() {
        if !case.kernel.contains(&filter) {
            continue;
        }
        let rep = if std::env::var("NOCHECK").is_ok() { None } else { Some(case.check(&gpu).unwrap()) };
        let (plan, _, live) = case.plan(&gpu, Default::default()).unwrap();
        let mut best = f64::MAX;
        plan.run(&live).unwrap();
        for _ in 0..3 {
            let t = Instant::now();
            let o = plan.run(&live).unwrap();
            let _ = o;
            best = best.min(t.elapsed().as_secs_f64());
        }
        println!(
            "{:<26} {:<28} {:.3} ms  err {:?}",
            case.kernel,
            case.shape,
            best * 1e3,
            rep.map(|r| (r.error, r.passed()))
        );
    }
}
