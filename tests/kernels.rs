//! Every kernel against its counterpart in `reference` (f64), with guard values and NaN around every tensor; and every
//! kernel's source and bindings without a GPU.

mod common;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write;
use std::time::Instant;

use common::{gpu, gpu_with};
use oaif::Wait;
use oaif::unstable::gpu::shader::{self, Constant, KERNELS, KernelKey};
use oaif::unstable::gpu::{
    Arithmetic, Candidates, DeviceKind, Gpu, GpuOptions, Limits, ProductTile, Products,
};
use oaif::unstable::gpu::{StagedProducts, StagedTile, Tier, Tuning, UnrolledTiles};
use oaif::unstable::ops::{Case, all_cases, largest_shapes, real_shapes};

/// The largest relative errors that this project promises.
const FORWARD: f64 = 2e-5;
const BACKWARD: f64 = 1e-4;

/// Kernels with a larger tolerance, with its value and the reason.
const EXCEPTIONS: [(&str, f64, &str); 0] = [];

fn check_tolerance(case: &Case) {
    let promised = if case.kernel.contains("backward") { BACKWARD } else { FORWARD };
    let excepted = EXCEPTIONS.iter().find(|(name, ..)| *name == case.kernel);
    let limit = excepted.map_or(promised, |(_, limit, _)| *limit);
    assert!(case.tolerance <= limit, "{} {}: {}", case.kernel, case.shape, case.tolerance);
}

/// Runs every case, prints the table, and fails with the list of cases above the tolerance.
fn check_all(gpu: &Gpu, checks: &str) {
    check(gpu, checks, all_cases());
}

fn check(gpu: &Gpu, checks: &str, cases: impl IntoIterator<Item = Case>) {
    let started = Instant::now();
    let mut failures = String::new();
    for case in cases {
        check_tolerance(&case);
        let (name, begun) = (format!("{:<26} {:<44}", case.kernel, case.shape), Instant::now());
        let found = match case.check(gpu).wait() {
            Ok(report) if report.passed() => {
                Ok(format!("{name} {:.1e} <= {:.0e}", report.error, report.tolerance))
            }
            Ok(report) => Err(format!("{name} {:.1e} ABOVE {:.0e}", report.error, report.tolerance)),
            Err(e) => Err(format!("{name} FAILED: {e}")),
        };
        if let Err(line) = &found {
            writeln!(failures, "{line}").unwrap();
        }
        println!("{} in {:.2?}", found.unwrap_or_else(|line| line), begun.elapsed());
    }
    let (name, kind, tier) = (&gpu.summary().name, gpu.tuning().kind(), gpu.tier());
    println!("{name} in {tier}, kernels for a {kind:?}, runtime checks {checks}: {:.0?}", started.elapsed());
    assert!(failures.is_empty(), "runtime checks {checks}, off or failed:\n{failures}");
}

#[test]
fn every_kernel_agrees_with_reference() {
    let Some(gpu) = gpu() else { return };
    check_all(&gpu, "off");
}

#[test]
fn every_kernel_agrees_with_reference_in_lower_tiers() {
    let Some(gpu) = gpu() else { return };
    for tier in Tier::ALL.into_iter().filter(|tier| *tier < gpu.tier()) {
        let gpu = Gpu::open(&GpuOptions::default().tier(tier)).wait().unwrap();
        assert_eq!(gpu.tier(), tier);
        check_all(&gpu, "off");
    }
}

/// Every choice of one tile with the others untuned, for a CPU; then those for GPUs.
fn tunings(subgroup: Option<u32>) -> Vec<Tuning> {
    let (all, untuned) = (Candidates::unrolled(subgroup), Tuning::untuned(subgroup, DeviceKind::Processor));
    let Products::Unrolled(tiles) = untuned.products else { panic!("a processor's products are unrolled") };
    let of_rows = all.rows.iter().map(|tile| UnrolledTiles { rows: *tile, ..tiles });
    let of_few = all.few_rows.iter().map(|tile| UnrolledTiles { few_rows: *tile, ..tiles });
    let of_columns = all.columns.iter().map(|tile| UnrolledTiles { columns: *tile, ..tiles });
    let unrolled = of_rows.chain(of_few).chain(of_columns).map(Products::Unrolled);
    let tiles = StagedTile::ALL.into_iter().map(ProductTile::Staged).chain([ProductTile::Matvec]);
    let staged = tiles.map(|tile| Products::Staged(StagedProducts::all_in(tile)));
    unrolled.chain(staged).map(|products| Tuning { products, ..untuned.clone() }).collect()
}

#[test]
fn every_kernel_agrees_with_reference_in_the_variants_for_gpus() {
    let Some(gpu) = gpu_with(GpuOptions::default(), DeviceKind::Gpu) else { return };
    check_all(&gpu, "off");
}

#[test]
fn every_tile_of_a_product_agrees_with_reference() {
    let Some(gpu) = gpu() else { return };
    let gpu = Gpu::open(&GpuOptions::default().tier(gpu.tier())).wait().unwrap();
    let untuned = gpu.tuning();
    for tuning in tunings(gpu.subgroup()).into_iter().filter(|tuning| *tuning != untuned) {
        gpu.set_tuning(tuning.clone());
        for case in all_cases().iter().filter(|c| c.kernel.starts_with("linear")) {
            let report = case.check(&gpu).wait().unwrap();
            assert!(report.passed(), "{tuning:?}: {} {} {:.1e}", case.kernel, case.shape, report.error);
        }
    }
}

#[test]
fn blocks_agree_with_reference_without_fusion() {
    for kind in [DeviceKind::Processor, DeviceKind::Gpu] {
        let Some(gpu) = gpu_with(GpuOptions::default(), kind) else { return };
        gpu.set_tuning(Tuning { fused_blocks: false, ..gpu.tuning() });
        let blocks = ["self_attention", "feed_forward"];
        for case in all_cases().iter().filter(|c| blocks.iter().any(|block| c.kernel.starts_with(block))) {
            let report = case.check(&gpu).wait().unwrap();
            assert!(report.passed(), "{kind:?}: {} {} {:.1e}", case.kernel, case.shape, report.error);
        }
    }
}

#[test]
fn every_kernel_agrees_with_reference_within_the_default_limits_of_webgpu() {
    for kind in [DeviceKind::Processor, DeviceKind::Gpu] {
        let options = GpuOptions::default().default_limits(true).tier(Tier::Portable);
        let Some(gpu) = gpu_with(options, kind) else { return };
        assert_eq!(gpu.limits().binding, Limits::default().binding);
        check_all(&gpu, "off");
    }
}

#[test]
fn real_shapes_agree_with_reference() {
    for kind in [DeviceKind::Processor, DeviceKind::Gpu] {
        let options = GpuOptions::default().default_limits(true);
        let Some(gpu) = gpu_with(options, kind) else { return };
        check(&gpu, "off", real_shapes());
    }
}

#[test]
#[ignore = "minutes on a processor: make test-largest"]
fn largest_shapes_agree_with_reference() {
    for kind in [DeviceKind::Processor, DeviceKind::Gpu] {
        let options = GpuOptions::default().default_limits(true);
        let Some(gpu) = gpu_with(options, kind) else { return };
        check(&gpu, "off", largest_shapes());
    }
}

/// The GPU with a tier that not every GPU supports; otherwise prints that the test was skipped.
fn gpu_in(tier: Tier, checked: bool) -> Option<Gpu> {
    gpu()?;
    let opened = Gpu::open(&GpuOptions::default().tier(tier).checked(checked)).wait();
    let Ok(gpu) = opened else {
        let why = opened.unwrap_err().to_string();
        assert!(why.contains("cannot run tier") && why.contains("or tier 1"), "{why}");
        eprintln!("SKIPPED: {why}");
        return None;
    };
    assert_eq!(gpu.tier(), tier);
    Some(gpu)
}

#[test]
fn every_kernel_agrees_with_reference_by_cooperative_matrices() {
    for (checked, checks) in [(false, "off"), (true, "on")] {
        let Some(gpu) = gpu_in(Tier::Cooperative, checked) else { return };
        check_all(&gpu, checks);
    }
}

#[test]
fn gradients_stay_f32_where_products_are_f16() {
    if let Some(gpu) = gpu_in(Tier::Cooperative, false) {
        let half = |shape: &str| shape.contains("F16");
        // Only the rows: they depend on no product of the forward pass.
        let cases = all_cases();
        let cases: Vec<_> =
            cases.iter().filter(|c| c.kernel == "linear_backward" && half(&c.shape)).collect();
        assert!(!cases.is_empty());
        for case in cases {
            let error = case.check(&gpu).wait().unwrap().error;
            assert!(error <= BACKWARD, "{} {}: {error:.1e}", gpu.tier(), case.shape);
        }
    }
}

/// The largest head size for which unrolled attention is tested with runtime checks: larger ones, which have the same
/// source, take minutes each to compile.
const LARGEST_CHECKED: u32 = 32;

#[test]
fn every_kernel_agrees_with_reference_under_runtime_checks() {
    for kind in [DeviceKind::Processor, DeviceKind::Gpu] {
        let options = GpuOptions::default().checked(true);
        let Some(gpu) = gpu_with(options, kind) else { return };
        let measuring = gpu.measuring();
        let compiles_soon = |case: &Case| {
            let (recorder, _, _) = case.recording(&measuring).unwrap();
            let large = |(name, value): &(String, Constant)| {
                name == "DIM" && matches!(value, Constant::U32(dim) if *dim > LARGEST_CHECKED)
            };
            let small =
                |key: &KernelKey| !key.name.starts_with("attention") || !key.constants.iter().any(large);
            kind == DeviceKind::Gpu || recorder.kernels().all(small)
        };
        check(&gpu, "on", all_cases().into_iter().filter(compiles_soon));
    }
}

/// The number of storage buffers that every WebGPU device supports per kernel.
const BINDINGS: usize = 8;

#[test]
fn every_kernel_and_its_bindings_validate_without_a_gpu() {
    let gpu = Gpu::without_device(Limits::default());
    let mut variants: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut wrong = BTreeSet::new();
    for kind in [DeviceKind::Processor, DeviceKind::Gpu] {
        for fused_blocks in [true, false] {
            gpu.set_tuning(Tuning { fused_blocks, ..Tuning::untuned(None, kind) });
            for case in all_cases() {
                let (recorder, _, _) = case.recording(&gpu).unwrap();
                if let Err(e) = recorder.validate() {
                    wrong.insert(format!("{e} (of {} {})", case.kernel, case.shape));
                }
                for key in recorder.kernels() {
                    variants.entry(key.name).or_default().insert(format!("{key:?}"));
                    if key.bindings.len() > BINDINGS {
                        wrong.insert(format!("{} has {} storage buffers", key.name, key.bindings.len()));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", Vec::from_iter(wrong).join("\n"));
    for (name, constants) in &variants {
        println!("{name:<30} {} variants", constants.len());
    }
    let unused: Vec<_> = KERNELS.iter().filter(|(name, _)| !variants.contains_key(name)).collect();
    assert!(unused.is_empty(), "no case exercises {:?}", unused.iter().map(|k| k.0).collect::<Vec<_>>());
}

/// naga's translation of every variant of every kernel to the languages of Metal and Direct3D, without either.
#[test]
fn kernels_become_msl_and_hlsl() {
    let gpu = Gpu::without_device(Limits::default());
    let mut done: HashSet<KernelKey> = HashSet::new();
    let mut wrong = BTreeSet::new();
    let cooperative = Arithmetic::Cooperative { size: 8, lanes: 32 };
    let settings = [DeviceKind::Processor, DeviceKind::Gpu].into_iter().flat_map(|kind| {
        let tuning = move |fused_blocks| Tuning { fused_blocks, ..Tuning::untuned(None, kind) };
        [(tuning(true), Arithmetic::F32), (tuning(false), Arithmetic::F32), (tuning(true), cooperative)]
    });
    let cases = all_cases();
    for (tuning, arithmetic) in settings {
        gpu.set_tuning(tuning);
        gpu.set_arithmetic(arithmetic);
        for case in &cases {
            let (recorder, _, _) = case.recording(&gpu).unwrap();
            for key in recorder.kernels() {
                if done.insert(key.clone())
                    && let Err(why) = translate(key)
                {
                    wrong.insert(format!("{} of {} {}: {why}", key.name, case.kernel, case.shape));
                }
            }
        }
    }
    println!("{} kernels", done.len());
    assert!(wrong.is_empty(), "{}", Vec::from_iter(wrong).join("\n"));
}

fn translate(key: &KernelKey) -> Result<(), String> {
    use naga::back::{hlsl, msl};
    use naga::valid::{Capabilities, ValidationFlags, Validator};
    let module = shader::validate(key).map_err(|e| e.to_string())?;
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
    let info = validator.validate(&module).map_err(|e| format!("{e:?}"))?;
    // Simdgroup matrices were added in Metal 2.3.
    let options = msl::Options { lang_version: (2, 3), ..msl::Options::default() };
    let text = msl::write_string(&module, &info, &options, &msl::PipelineOptions::default());
    let (text, _) = text.map_err(|e| format!("MSL: {e}"))?;
    assert!(text.contains("kernel void"), "{text}");
    // HLSL has no cooperative matrices, so this tier does not exist there.
    if key.is_on("COOPERATIVE") {
        return Ok(());
    }
    let options = hlsl::Options { shader_model: hlsl::ShaderModel::V6_0, ..hlsl::Options::default() };
    let (stage, mut text) = (hlsl::PipelineOptions::default(), String::new());
    let written = hlsl::Writer::new(&mut text, &options, &stage).write(&module, &info, None);
    written.map_err(|e| format!("HLSL: {e}"))?;
    assert!(text.contains("[numthreads("), "{text}");
    Ok(())
}

/// A GPU has one subgroup size: variants for other sizes are only validated.
#[test]
fn every_tile_of_every_subgroup_size_validates_without_a_gpu() {
    for lanes in [8, 16, 32, 64] {
        for tuning in tunings(Some(lanes)) {
            let gpu = Gpu::without_device(Limits::default());
            gpu.set_tuning(tuning.clone());
            for case in all_cases().iter().filter(|c| c.kernel.starts_with("linear")) {
                let (recorder, _, _) = case.recording(&gpu).unwrap();
                recorder
                    .validate()
                    .unwrap_or_else(|e| panic!("{lanes} lanes, {tuning:?}, {}: {e}", case.shape));
            }
        }
    }
}

/// Most GPUs have no cooperative matrices.
#[test]
fn kernels_in_f16_validate_and_become_spirv_without_a_gpu() {
    use naga::back::spv;
    let cooperative =
        [(16, 32), (16, 64), (8, 32), (8, 8)].map(|(size, lanes)| Arithmetic::Cooperative { size, lanes });
    for arithmetic in cooperative {
        let gpu = Gpu::without_device(Limits::default());
        gpu.set_arithmetic(arithmetic);
        let mut names = BTreeSet::new();
        for case in all_cases().iter().filter(|c| c.shape.contains("F16")) {
            let (recorder, _, _) = case.recording(&gpu).unwrap();
            recorder
                .validate()
                .unwrap_or_else(|e| panic!("{arithmetic} {} {}: {e}", case.kernel, case.shape));
            for key in recorder.kernels().filter(|k| k.is_on("COOPERATIVE")) {
                let module = shader::validate(key).unwrap();
                let all = naga::valid::Capabilities::all();
                let info =
                    naga::valid::Validator::new(naga::valid::ValidationFlags::all(), all).validate(&module);
                let options = spv::Options { lang_version: (1, 3), ..spv::Options::default() };
                let words = spv::write_vec(&module, &info.unwrap(), &options, None).unwrap();
                assert!(!words.is_empty());
                names.insert(key.name);
            }
        }
        assert_eq!(Vec::from_iter(names), ["gated_forward", "linear_forward", "qkv_forward"], "{arithmetic}");
    }
}

#[test]
fn no_tolerance_is_looser_than_promised() {
    all_cases().iter().for_each(check_tolerance);
}

#[test]
fn a_kernel_with_a_mistake_is_an_error_that_names_it() {
    let key = KernelKey { name: "attention_forward", constants: vec![], params: vec![], bindings: vec![] };
    let message = shader::validate(&key).unwrap_err().to_string();
    assert!(
        message.starts_with("shader attention_forward") && message.contains("WINDOW is not given"),
        "{message}"
    );
}
