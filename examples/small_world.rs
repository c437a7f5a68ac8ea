//! Writes the small world's training rows, prompts, held-out pairs, tokenizer and model configurations to a folder, as
//! input of `scripts/models.sh` and `scripts/models.py`.
//!
//!     cargo run --release --example small_world -- world

use std::path::Path;

use oaif::Result;
use oaif::Wait;
use oaif::unstable::demo::dataset::{
    LIKELIHOOD_TEMPLATE, PROMPTED_TEMPLATE, held_out_pair, likelihood_row, policy_row, prompt, prompted_row,
};
use oaif::unstable::demo::language::{SPECIALS, tokenizer_json, vocabulary};
use oaif::unstable::files;
use oaif::unstable::gpu::{Gpu, GpuOptions};
use oaif::unstable::model::FloatFormat;
use oaif::unstable::model::{Model, ModelConfig};
use serde_json::{Value, json};

/// A model and its training.
struct Recipe {
    name: &'static str,
    /// Width C, layers L, feed-forward size F, heads H.
    shape: [usize; 4],
    rows: &'static str,
    /// The model from which training starts; empty for random weights. The "marked" models are only intermediate: they
    /// learn to check facts, and the prompted judges start from them.
    from: &'static str,
    steps: usize,
    learning_rate: f64,
    /// Rows per step. The files hold the rows of whole trainings, in order.
    batch: usize,
}

/// The context length in tokens.
const CONTEXT: usize = 256;

const SMALL: [usize; 4] = [40, 2, 112, 5];
const MEDIUM: [usize; 4] = [64, 5, 176, 4];
const LARGE: [usize; 4] = [128, 4, 384, 8];

#[rustfmt::skip]
const RECIPES: [Recipe; 10] = [
    Recipe { name: "policy", shape: MEDIUM, rows: "policy.jsonl", from: "", steps: 400, learning_rate: 3e-3, batch: 64 },
    Recipe { name: "judge-small", shape: SMALL, rows: "likelihood.jsonl", from: "", steps: 200, learning_rate: 3e-3, batch: 64 },
    Recipe { name: "judge-medium", shape: MEDIUM, rows: "likelihood.jsonl", from: "", steps: 800, learning_rate: 3e-3, batch: 64 },
    Recipe { name: "judge-large", shape: LARGE, rows: "likelihood.jsonl", from: "", steps: 500, learning_rate: 2e-3, batch: 64 },
    Recipe { name: "judge-evaluation", shape: MEDIUM, rows: "evaluation.jsonl", from: "", steps: 500, learning_rate: 3e-3, batch: 64 },
    Recipe { name: "marked-medium", shape: MEDIUM, rows: "marked.jsonl", from: "judge-medium", steps: 2400, learning_rate: 2e-3, batch: 32 },
    Recipe { name: "prompted-medium", shape: MEDIUM, rows: "prompted.jsonl", from: "marked-medium", steps: 1500, learning_rate: 1.5e-3, batch: 32 },
    Recipe { name: "marked-large", shape: LARGE, rows: "marked.jsonl", from: "judge-large", steps: 2400, learning_rate: 2e-3, batch: 32 },
    Recipe { name: "prompted-large", shape: LARGE, rows: "prompted.jsonl", from: "marked-large", steps: 1500, learning_rate: 1.5e-3, batch: 32 },
    Recipe { name: "prompted-small", shape: SMALL, rows: "prompted.jsonl", from: "judge-small", steps: 1500, learning_rate: 2e-3, batch: 32 },
];

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "world".into());
    let folder = Path::new(&folder);
    write_data(folder)?;
    write_models(folder)?;
    println!("{}", folder.display());
    Ok(())
}

fn write_data(folder: &Path) -> Result<()> {
    let rows = |file: &str| {
        let rows =
            RECIPES.iter().filter(|recipe| recipe.rows == file).map(|recipe| recipe.steps * recipe.batch);
        rows.max().unwrap_or(0)
    };
    let (marked, prompted) = (rows("marked.jsonl"), rows("prompted.jsonl"));
    let progress = |row| row as f64 / marked as f64;
    let prompts = |held_out| move |row| json!({"prompt": prompt(held_out, row).to_string()});
    write_rows(&folder.join("policy.jsonl"), rows("policy.jsonl"), |row| policy_row(0, row))?;
    write_rows(&folder.join("likelihood.jsonl"), rows("likelihood.jsonl"), |row| likelihood_row(0, row))?;
    write_rows(&folder.join("evaluation.jsonl"), rows("evaluation.jsonl"), |row| likelihood_row(1, row))?;
    write_rows(&folder.join("marked.jsonl"), marked, |row| prompted_row(0, row, progress(row)))?;
    write_rows(&folder.join("prompted.jsonl"), prompted, |row| prompted_row(1, row, 1.0))?;
    write_rows(&folder.join("prompts.jsonl"), 2000, prompts(false))?;
    write_rows(&folder.join("held_out.jsonl"), 500, prompts(true))?;
    write_rows(&folder.join("pairs.jsonl"), 2000, held_out_pair)?;
    files::write_atomic(&folder.join("likelihood.txt"), LIKELIHOOD_TEMPLATE.as_bytes())?;
    files::write_atomic(&folder.join("prompted.txt"), PROMPTED_TEMPLATE.as_bytes())
}

/// Writes each model's folder with random initial weights, and `recipes.tsv` for the scripts: name, rows, initial
/// weights, steps, learning rate, rows per step.
fn write_models(folder: &Path) -> Result<()> {
    let gpu = Gpu::open(&GpuOptions::default()).wait()?;
    let [unk, bos, eos] = SPECIALS;
    let tokenizer_config = json!({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": unk, "bos_token": bos,
        "eos_token": eos, "clean_up_tokenization_spaces": false, "model_max_length": CONTEXT});
    let mut recipes = String::new();
    for (seed, recipe) in (1..).zip(RECIPES) {
        let Recipe {
            name,
            shape: [hidden, layers, feed_forward, heads],
            rows,
            from,
            steps,
            learning_rate,
            batch,
        } = recipe;
        let config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
            "intermediate_size": feed_forward, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": heads, "vocab_size": vocabulary().len(), "max_position_embeddings": CONTEXT,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "attention_bias": false,
            "mlp_bias": false, "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": 2,
            "initializer_range": 0.1, "torch_dtype": "float32"
        });
        let folder = folder.join(name);
        files::create_dir_all(&folder)?;
        let parts = [("config.json", config), ("tokenizer.json", tokenizer_json())];
        for (file, content) in parts.into_iter().chain([("tokenizer_config.json", tokenizer_config.clone())])
        {
            files::write_atomic(&folder.join(file), format!("{content:#}\n").as_bytes())?;
        }
        Model::random(&gpu, ModelConfig::load(&folder)?, false, seed)
            .wait()?
            .save(&folder, None, FloatFormat::F32)
            .wait()?;
        let from = if from.is_empty() { "-" } else { from };
        recipes += &format!("{name}\t{rows}\t{from}\t{steps}\t{learning_rate}\t{batch}\n");
    }
    files::write_atomic(&folder.join("recipes.tsv"), recipes.as_bytes())
}

fn write_rows(path: &Path, rows: usize, row: impl Fn(usize) -> Value) -> Result<()> {
    files::create_dir_all(path.parent().expect("a file in a folder"))?;
    let mut file = files::AtomicFile::create(path)?;
    (0..rows).try_for_each(|i| file.write(format!("{}\n", row(i)).as_bytes()))?;
    file.commit()
}
