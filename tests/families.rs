//! Every family of models against transformers and peft in f64; `fixtures/families.py` makes tiny models with random
//! weights.

mod common;

use common::{fixture, gpu, parity};
use oaif::Wait;
use oaif::unstable::model::families::FAMILIES;
use oaif::unstable::model::{FloatFormat, Model, ModelConfig};

/// Checks the models of a family, whose folders start with its name.
fn check(family: &str) {
    let Some(gpu) = gpu() else { return };
    let mut checked = 0;
    for folder in std::fs::read_dir(fixture("families")).unwrap() {
        let folder = folder.unwrap().path();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        if name.split('-').next() == Some(family) {
            parity::check(&gpu, &folder);
            checked += 1;
        }
    }
    assert!(checked > 0, "there is no model of {family}");
}

macro_rules! families {
    ($($test:ident: $family:literal,)*) => {
        $(
            #[test]
            fn $test() {
                check($family);
            }
        )*

        /// The families that the tests above check.
        const CHECKED: &[&str] = &[$($family),*];
    };
}

families! {
    llamas_with_biases_and_stretched_positions_compute_what_transformers_computes: "llama",
    mistral_computes_what_transformers_computes: "mistral",
    qwen2_computes_what_transformers_computes: "qwen2",
    qwen3_computes_what_transformers_computes: "qwen3",
    gemma2_computes_what_transformers_computes: "gemma2",
    gemma3_computes_what_transformers_computes: "gemma3",
    smollm3_computes_what_transformers_computes: "smollm3",
    olmo2_computes_what_transformers_computes: "olmo2",
    granite_computes_what_transformers_computes: "granite",
    phi3_computes_what_transformers_computes: "phi3",
    gpt2_computes_what_transformers_computes: "gpt2",
    gpt_neox_computes_what_transformers_computes: "gpt_neox",
}

#[test]
fn every_family_is_checked() {
    for family in FAMILIES {
        let name = family.model_type.trim_end_matches("_text");
        assert!(CHECKED.contains(&name), "{name}");
    }
}

/// A model that is loaded and saved has the same tensors: names, shapes, order of rows.
#[test]
fn a_saved_model_has_the_tensors_that_it_was_loaded_from() {
    let Some(gpu) = gpu() else { return };
    for folder in std::fs::read_dir(fixture("families")).unwrap() {
        let folder = folder.unwrap().path();
        let saved = tempfile::tempdir().unwrap();
        let model = Model::load(&gpu, &folder, false).wait().unwrap();
        model.save(&saved.path().join("model"), None, FloatFormat::F32).wait().unwrap();
        let [before, after] = [folder.as_path(), &saved.path().join("model")]
            .map(|folder| common::Tensors::read(&folder.join("model.safetensors")));
        let sorted = |tensors: &common::Tensors| {
            let mut names = tensors.names();
            names.sort();
            names
        };
        let names = sorted(&after);
        assert_eq!(sorted(&before), names, "{}", folder.display());
        for name in names {
            assert_eq!(before.f32(&name), after.f32(&name), "{}: {name}", folder.display());
        }
        let [before, after] =
            [folder.as_path(), &saved.path().join("model")].map(|folder| ModelConfig::load(folder).unwrap());
        assert_eq!(before.architecture, after.architecture);
        // The same holds for an adapter.
        let adapted = model.load_adapter(&folder.join("adapter"), false).unwrap();
        adapted.save_adapter(&saved.path().join("adapter"), &folder).wait().unwrap();
        let [before, after] = [folder.join("adapter"), saved.path().join("adapter")]
            .map(|folder| common::Tensors::read(&folder.join("adapter_model.safetensors")));
        for name in after.names() {
            assert_eq!(before.f32(&name), after.f32(&name), "{}: {name}", folder.display());
        }
        model.load_adapter(&saved.path().join("adapter"), false).unwrap();
    }
}

/// Merging an adapter, saving and loading it change no log-probability: the order of rows is kept, also where they are
/// transposed or stored by head.
#[test]
fn a_merged_model_has_the_log_probabilities_of_its_adapter() {
    let Some(gpu) = gpu() else { return };
    for folder in std::fs::read_dir(fixture("families")).unwrap() {
        let folder = folder.unwrap().path();
        let rows: Vec<Vec<u32>> =
            [5, 19, 31].map(|n| (0..n).map(|i| 3 + (i * i * 7 + n) % 90).collect()).to_vec();
        let adapted = || {
            let base = Model::load(&gpu, &folder, false).wait().unwrap();
            base.load_adapter(&folder.join("adapter"), false).unwrap()
        };
        let want = common::logps(&gpu, &adapted(), &rows);
        let saved = tempfile::tempdir().unwrap();
        let merged = saved.path().join("merged");
        adapted().merge_adapter().wait().unwrap().save(&merged, None, FloatFormat::F32).wait().unwrap();
        let merged = Model::load(&gpu, &merged, false).wait().unwrap();
        let (largest, _) = common::logp_differences(&gpu, &merged, &rows, &want);
        let base = Model::load(&gpu, &folder, false).wait().unwrap();
        let (unmerged, _) = common::logp_differences(&gpu, &base, &rows, &want);
        assert!(largest <= 1e-4 && unmerged > 1e-2, "{}: {largest:.1e}, {unmerged:.1e}", folder.display());
    }
}
