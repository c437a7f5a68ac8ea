//! The files of models and adapters are interpreted and saved as by peft and transformers (tests/fixtures/README.md),
//! and invalid ones are refused by name.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{fixture, gpu, ids, json, relative_distance};
use oaif::Wait;
use oaif::unstable::data::packing::Tree;
use oaif::unstable::gpu::{Arena, Gpu};
use oaif::unstable::model::safetensors_io::{TensorFiles, TensorSpec, TensorWriter};
use oaif::unstable::model::stream::Capacity;
use oaif::unstable::model::{FloatFormat, LoraConfig, LoraTargets, Model, Scorer};
use serde_json::{Value, json as value};

const FORMS: [&str; 4] = ["regex", "paths", "patterns", "layers"];
const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

fn logps(gpu: &Gpu, model: &Model, rows: &[Vec<u32>]) -> Vec<f32> {
    let tree = |row: &Vec<u32>| Tree { prompt: row[..1].to_vec(), responses: vec![row[1..].to_vec()] };
    let trees: Vec<Tree> = rows.iter().map(tree).collect();
    let scorer = Scorer::new(gpu, model, Capacity::of(&trees), &Arena::new()).wait().unwrap();
    scorer.score(&trees).wait().unwrap().into_iter().flat_map(|s| s.logps).collect()
}

fn rows() -> Vec<Vec<u32>> {
    json("tiny_adapters.json")["ids"].as_array().unwrap().iter().map(ids).collect()
}

fn copied(from: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
    dir
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut json: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

/// A tensor in main memory: shape and values.
type Tensor = (Vec<usize>, Vec<f32>);

fn tensors(file: &Path) -> BTreeMap<String, Tensor> {
    let found = TensorFiles::open_file(file).unwrap();
    let tensor = |name: &str| {
        let shape = found.info(name).unwrap().shape.clone();
        let values = found.read_f32(name, &shape).unwrap();
        (name.to_owned(), (shape, values))
    };
    found.names().map(tensor).collect()
}

/// Rewrites a file of tensors in f32.
fn edit_tensors(file: &Path, change: impl FnOnce(&mut BTreeMap<String, Tensor>)) {
    let mut all = tensors(file);
    change(&mut all);
    let spec = |(name, (shape, _)): (&String, &Tensor)| TensorSpec {
        name: name.clone(),
        shape: shape.clone(),
        format: FloatFormat::F32,
    };
    let specs = all.iter().map(spec).collect();
    let mut file = TensorWriter::create(file, specs, &BTreeMap::new()).unwrap();
    while let Some(spec) = file.wants() {
        let values = all[&spec.name].1.clone();
        file.push(&values).unwrap();
    }
    file.finish().unwrap();
}

/// tiny_tied with changed tensors and a changed config.json.
fn tied(
    change: impl FnOnce(&mut BTreeMap<String, Tensor>),
    config: impl FnOnce(&mut Value),
) -> tempfile::TempDir {
    let dir = copied(&fixture("tiny_tied"));
    edit_tensors(&dir.path().join("model.safetensors"), change);
    edit(&dir.path().join("config.json"), config);
    dir
}

#[track_caller]
fn assert_refused<T>(result: oaif::unstable::error::Result<T>, parts: &[&str]) {
    let Err(error) = result else { panic!("accepted") };
    let message = error.to_string();
    parts.iter().for_each(|part| assert!(message.contains(part), "{part:?} is not in {message:?}"));
}

#[test]
fn adapters_of_every_form_give_the_log_probabilities_of_peft() {
    let Some(gpu) = gpu() else { return };
    let known = json("tiny_adapters.json");
    let base = Model::load(&gpu, &fixture("tiny"), false).wait().unwrap();
    for form in FORMS {
        let model = base.load_adapter(&fixture("tiny_adapters").join(form), true).unwrap();
        let layout = &model.adapter().unwrap().layout;
        let terms = known[form]["terms"].as_object().unwrap();
        assert_eq!(layout.terms().len(), terms.len(), "{form}");
        for term in layout.terms() {
            let [rank, scale] = [0, 1].map(|i| terms[&layout.module(term)][i].as_f64().unwrap());
            assert_eq!(term.rank as f64, rank, "{form} {term:?}");
            assert!((layout.scale(term) as f64 - scale).abs() < 1e-6, "{form} {term:?}");
        }
        let want = known[form]["logps"].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
        let want: Vec<f32> = want.map(|v| v.as_f64().unwrap() as f32).collect();
        let distance = |model: &Model| relative_distance(&logps(&gpu, model, &rows()), &want);
        assert!(distance(&model) < 1e-5, "{form}: {}", distance(&model));
        assert!(distance(&base) > 1e-2, "{form}: the adapter has an effect");

        // Saving keeps the adapter, and so does merging.
        let dir = tempfile::tempdir().unwrap();
        model.save_adapter(dir.path(), &fixture("tiny")).wait().unwrap();
        let again = base.load_adapter(dir.path(), false).unwrap();
        assert_eq!(again.adapter().unwrap().layout, *layout, "{form}");
        assert!(distance(&again) < 1e-5, "{form}");
        let merged = again.merge_adapter().wait().unwrap();
        assert!(distance(&merged) < 1e-5, "{form}: {}", distance(&merged));
        assert!(dir.path().join("tokenizer.json").exists() && !dir.path().join("config.json").exists());
    }
}

#[test]
fn an_adapter_and_its_configuration_must_agree() {
    let Some(gpu) = gpu() else { return };
    let base = Model::load(&gpu, &fixture("tiny"), false).wait().unwrap();
    let q = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
    let try_config = |change: &dyn Fn(&mut Value)| {
        let dir = copied(&fixture("tiny_adapters/regex"));
        edit(&dir.path().join("adapter_config.json"), change);
        base.load_adapter(dir.path(), false)
    };
    let try_tensors = |change: &dyn Fn(&mut BTreeMap<String, Tensor>)| {
        let dir = copied(&fixture("tiny_adapters/regex"));
        edit_tensors(&dir.path().join("adapter_model.safetensors"), change);
        base.load_adapter(dir.path(), false)
    };
    let both = |key: &'static str, set: Value| try_config(&move |json| json[key] = set.clone());
    assert_refused(both("target_modules", value!(["v_proj"])), &[q, "does not list"]);
    assert_refused(
        both("target_modules", value!(["q_proj", "v_proj", "k_proj"])),
        &["no tensor", "k_proj.lora_A"],
    );
    assert_refused(both("r", value!(5)), &[q, "has rank 4", "says 5 (r, or rank_pattern)"]);
    assert_refused(both("rank_pattern", value!({"v_proj": 2})), &["v_proj.lora_A", "has rank 4", "says 2"]);
    assert_refused(both("init_lora_weights", value!("pissa")), &["adapter_config.json", "init_lora_weights"]);
    assert_refused(
        try_tensors(&|t| {
            let tensor = t[q].clone();
            t.insert("base_model.model.lm_head.lora_A.weight".into(), tensor);
        }),
        &["lm_head.lora_A.weight", "2 layers"],
    );
    assert_refused(
        try_tensors(&|t| {
            t.insert(
                "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector".into(),
                (vec![1], vec![1.0]),
            );
        }),
        &["lora_magnitude_vector"],
    );
    assert_refused(try_tensors(&|t| drop(t.remove(q))), &["no tensor", q]);
    let wide = (vec![4, 64], vec![0.1; 256]);
    assert_refused(
        try_tensors(&|t| drop(t.insert(q.into(), wide.clone()))),
        &[q, "[4, 64]", "another model", "\"tiny\""],
    );
    assert_refused(try_tensors(&|t| t.get_mut(q).unwrap().1[3] = f32::NAN), &[q, "NaN"]);
    assert_refused(
        try_tensors(&|t| {
            let tensor = t[q].clone();
            t.insert(q.replace("base_model.model.", ""), tensor);
        }),
        &["are the same tensor"],
    );
    // The alternative names of PEFT and transformers refer to the same tensors.
    let want = logps(&gpu, &base.load_adapter(&fixture("tiny_adapters/regex"), false).unwrap(), &rows());
    for rename in [
        |name: &str| name.replace(".weight", ".default.weight"),
        |name: &str| name.replace("base_model.model.", ""),
    ] {
        let renamed = try_tensors(&|t| *t = t.iter().map(|(n, v)| (rename(n), v.clone())).collect()).unwrap();
        assert_eq!(logps(&gpu, &renamed, &rows()), want);
    }
}

#[test]
fn another_base_dropout_and_unknown_keys_of_an_adapter_give_warnings() {
    let Some(gpu) = gpu() else { return };
    let base = Model::load(&gpu, &fixture("tiny"), false).wait().unwrap();
    let dir = copied(&fixture("tiny_adapters/regex"));
    let warnings = |train: bool| -> Vec<String> {
        let model = base.load_adapter(dir.path(), train).unwrap();
        assert_eq!(model.merge_adapter().wait().unwrap().warnings().count(), 0);
        model.warnings().map(str::to_owned).collect()
    };
    assert!(warnings(true).is_empty());
    edit(&dir.path().join("adapter_config.json"), |json| {
        json["base_model_name_or_path"] = value!("meta-llama/Llama-3.2-1B");
        json["lora_dropout"] = value!(0.1);
        json["newest"] = value!({"a": 1});
    });
    let found = warnings(true).join("\n");
    for part in ["meta-llama/Llama-3.2-1B", "lora_dropout", "newest"] {
        assert!(found.contains(part), "{part} is not in {found}");
    }
    assert_eq!(warnings(false).len(), 2, "dropout matters to training alone");
}

#[test]
fn a_separate_head_is_used_whatever_the_configuration_says() {
    let Some(gpu) = gpu() else { return };
    let halved = |t: &mut BTreeMap<String, Tensor>| {
        let (shape, values) = t[EMBEDDING].clone();
        t.insert(HEAD.into(), (shape, values.iter().map(|v| 0.5 * v).collect()));
    };
    let load = |dir: &Path| Model::load(&gpu, dir, false).wait().unwrap();
    let plain = logps(&gpu, &load(&fixture("tiny_tied")), &rows());
    let untied = tied(halved, |config| config["tie_word_embeddings"] = value!(false));
    let want = logps(&gpu, &load(untied.path()), &rows());
    assert!(relative_distance(&want, &plain) > 1e-2);

    let contradictory = tied(halved, |_| {});
    let model = load(contradictory.path());
    assert_eq!(logps(&gpu, &model, &rows()), want);
    let warnings: Vec<&str> = model.warnings().collect();
    assert!(warnings.len() == 1 && warnings[0].contains("lm_head.weight"), "{warnings:?}");
    assert!(warnings[0].contains("tie_word_embeddings"), "{warnings:?}");
    // The saved configuration says so, too.
    let out = tempfile::tempdir().unwrap();
    model.save(out.path(), Some(contradictory.path()), FloatFormat::F32).wait().unwrap();
    let again = load(out.path());
    assert_eq!((logps(&gpu, &again, &rows()), again.warnings().count()), (want, 0));
    assert_eq!(json_of(&out.path().join("config.json"))["tie_word_embeddings"], value!(false));

    // A head that is a copy of the embedding is not separate; the comparison includes the last row.
    let same = tied(|t| drop(t.insert(HEAD.into(), t[EMBEDDING].clone())), |_| {});
    let model = load(same.path());
    assert_eq!((logps(&gpu, &model, &rows()), model.warnings().count()), (plain.clone(), 0));
    let last = tied(
        |t| {
            let mut head = t[EMBEDDING].clone();
            *head.1.last_mut().unwrap() += 1.0;
            t.insert(HEAD.into(), head);
        },
        |_| {},
    );
    assert_eq!(load(last.path()).warnings().count(), 1);
    // The embedding stored under the head's name only.
    let alone = tied(
        |t| {
            let embedding = t.remove(EMBEDDING).unwrap();
            t.insert(HEAD.into(), embedding);
        },
        |_| {},
    );
    assert_eq!(logps(&gpu, &load(alone.path()), &rows()), plain);

    let refused = |change: &dyn Fn(&mut BTreeMap<String, Tensor>), tie: Value, parts: &[&str]| {
        let dir = tied(change, |config| config["tie_word_embeddings"] = tie);
        assert_refused(Model::load(&gpu, dir.path(), false).wait(), parts);
    };
    refused(&|_| {}, value!(false), &["no tensor lm_head.weight", "tie_word_embeddings"]);
    refused(&|_| {}, value!(null), &["no tensor lm_head.weight", "tie_word_embeddings"]);
    let longer =
        |t: &mut BTreeMap<String, Tensor>| drop(t.insert(HEAD.into(), (vec![97, 32], vec![0.0; 97 * 32])));
    refused(&longer, value!(true), &["lm_head.weight", "[97, 32]"]);
    let only = |t: &mut BTreeMap<String, Tensor>| {
        let embedding = t.remove(EMBEDDING).unwrap();
        t.insert(HEAD.into(), embedding);
    };
    refused(&only, value!(false), &["no tensor model.embed_tokens.weight"]);
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn the_tensor_names_of_a_bare_and_of_a_wrapped_decoder_are_accepted() {
    let Some(gpu) = gpu() else { return };
    let load = |dir: &Path| Model::load(&gpu, dir, false).wait();
    let want = logps(&gpu, &load(&fixture("tiny_tied")).unwrap(), &rows());
    let renamed = |rename: &dyn Fn(&str) -> String| {
        tied(|t| *t = t.iter().map(|(name, tensor)| (rename(name), tensor.clone())).collect(), |_| {})
    };
    for dir in [renamed(&|n| n.replacen("model.", "", 1)), renamed(&|n| format!("model.{n}"))] {
        assert_eq!(logps(&gpu, &load(dir.path()).unwrap(), &rows()), want);
    }
    for dir in
        [renamed(&|n| n.replacen("model.", "transformer.", 1)), renamed(&|n| format!("base_model.model.{n}"))]
    {
        assert_refused(load(dir.path()), &["tensor(s)", "check that config.json belongs to this file"]);
    }
}

#[test]
fn damaged_and_foreign_weights_are_refused_by_tensor() {
    let Some(gpu) = gpu() else { return };
    let name = "model.layers.1.mlp.up_proj.weight";
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let dir = tied(|t| t.get_mut(name).unwrap().1[5] = bad, |_| {});
        for train in [false, true] {
            assert_refused(
                Model::load(&gpu, dir.path(), train).wait(),
                &[name, &format!("holds {bad}"), "damaged"],
            );
        }
    }
    let norm = tied(|t| t.get_mut("model.norm.weight").unwrap().1[0] = f32::NAN, |_| {});
    assert_refused(Model::load(&gpu, norm.path(), false).wait(), &["model.norm.weight", "NaN"]);
    let other = tied(|t| drop(t.insert("v_head.weight".into(), (vec![1], vec![0.0]))), |_| {});
    assert_refused(Model::load(&gpu, other.path(), false).wait(), &["v_head.weight"]);
    let rows = tied(|_| {}, |config| config["vocab_size"] = value!(97));
    assert_refused(Model::load(&gpu, rows.path(), false).wait(), &[EMBEDDING, "[96, 32]", "[97, 32]"]);
}

#[test]
fn a_model_with_values_out_of_the_formats_range_leaves_no_files() {
    let Some(gpu) = gpu() else { return };
    let name = "model.layers.0.mlp.up_proj.weight";
    let large = tied(|t| t.get_mut(name).unwrap().1[5] = 7e4, |_| {});
    let huge = tied(|t| t.get_mut("model.norm.weight").unwrap().1[0] = f32::MAX, |_| {});
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    for (dir, format, parts) in [
        (&large, FloatFormat::F16, [name, "70000", "65504"]),
        (&huge, FloatFormat::F16, ["model.norm.weight", "65504", "float32"]),
        (&huge, FloatFormat::Bf16, ["model.norm.weight", "3.3895", "float32"]),
    ] {
        let model = Model::load_frozen(&gpu, dir.path(), Some(FloatFormat::F32.into())).wait().unwrap();
        assert_refused(model.save(&out, Some(dir.path()), format).wait(), &parts);
        assert!(!out.exists());
        // An existing folder is left unchanged.
        fs::create_dir(&out).unwrap();
        fs::write(out.join("mine"), "mine").unwrap();
        assert_refused(model.save(&out, Some(dir.path()), format).wait(), &parts);
        let names: Vec<_> = fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["mine"]);
        fs::remove_dir_all(&out).unwrap();
    }
    let model = Model::load_frozen(&gpu, large.path(), Some(FloatFormat::F32.into())).wait().unwrap();
    model.save(&out, Some(large.path()), FloatFormat::Bf16).wait().unwrap();
    assert_eq!(json_of(&out.join("config.json"))["torch_dtype"], value!("bfloat16"));
    model.base().upload(name, &vec![f32::NAN; 48 * 32]).unwrap();
    assert_refused(model.save(&root.path().join("nan"), None, FloatFormat::F32).wait(), &[name, "NaN"]);
}

#[test]
fn an_impossible_rank_is_refused_before_memory_is_allocated() {
    let Some(gpu) = gpu() else { return };
    let base = Model::load(&gpu, &fixture("tiny"), false).wait().unwrap();
    let targets = LoraTargets::AllLinear;
    for rank in [0, 65537, usize::MAX] {
        let config = LoraConfig::new(rank).alpha(8.0).targets(targets.clone());
        assert_refused(base.add_adapter(config, 1), &["LoRA rank", &rank.to_string(), "1 to 65536"]);
    }
    let config = LoraConfig::new(2).alpha(f32::INFINITY).targets(targets);
    assert_refused(base.add_adapter(config, 1), &["LoRA alpha"]);
}
