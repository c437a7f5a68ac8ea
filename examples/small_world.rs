//! Writes the small world's training rows, prompts, held-out pairs, tokenizer and model configurations to a folder:
//! what `scripts/models.sh` and `scripts/models.py` train from.
//!
//!     cargo run --release --example small_world -- world

use std::io::Write;
use std::path::Path;

use oaif::demo::dataset::{
    LIKELIHOOD_TEMPLATE, PROMPTED_TEMPLATE, held_out_pair, likelihood_row, policy_row, prompt, prompted_row,
};
use oaif::demo::language::{SPECIALS, tokenizer_json, vocabulary};
use oaif::{Result, files};
use serde_json::{Value, json};

/// A model's name, width C, layers L, feed-forward size F, heads H.
const MODELS: [(&str, usize, usize, usize, usize); 8] = [
    ("policy", 80, 3, 240, 5),
    ("judge-small", 40, 2, 112, 5),
    ("judge-medium", 80, 3, 240, 5),
    ("judge-large", 128, 4, 384, 8),
    ("judge-evaluation", 128, 4, 384, 8),
    ("prompted-small", 40, 2, 112, 5),
    ("prompted-medium", 80, 3, 240, 5),
    ("prompted-large", 128, 4, 384, 8),
];

/// Rows a step; the files hold the rows of whole trainings, in order.
const BATCH: usize = 64;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap_or_else(|| "world".into());
    let mut steps = |default| arguments.next().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (policy, likelihood, prompted) = (steps(1500), steps(2000), steps(2500));
    let folder = Path::new(&folder);

    let n = prompted * BATCH;
    write_rows(&folder.join("policy.jsonl"), policy * BATCH, |row| policy_row(0, row))?;
    write_rows(&folder.join("likelihood.jsonl"), likelihood * BATCH, |row| likelihood_row(0, row))?;
    write_rows(&folder.join("evaluation.jsonl"), likelihood * BATCH, |row| likelihood_row(1, row))?;
    write_rows(&folder.join("prompted.jsonl"), n, |row| prompted_row(0, row, row as f64 / n as f64))?;
    write_rows(&folder.join("prompts.jsonl"), 2000, |row| json!({"prompt": prompt(false, row).to_string()}))?;
    write_rows(&folder.join("held_out.jsonl"), 500, |row| json!({"prompt": prompt(true, row).to_string()}))?;
    write_rows(&folder.join("pairs.jsonl"), 2000, held_out_pair)?;
    files::write_atomic(&folder.join("likelihood.txt"), LIKELIHOOD_TEMPLATE.as_bytes())?;
    files::write_atomic(&folder.join("prompted.txt"), PROMPTED_TEMPLATE.as_bytes())?;

    let [unk, bos, eos] = SPECIALS;
    let tokenizer_config = json!({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": unk, "bos_token": bos,
        "eos_token": eos, "clean_up_tokenization_spaces": false, "model_max_length": 256});
    for (name, hidden, layers, feed_forward, heads) in MODELS {
        let config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
            "intermediate_size": feed_forward, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": heads, "vocab_size": vocabulary().len().next_multiple_of(8),
            "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
            "attention_bias": false, "mlp_bias": false, "tie_word_embeddings": true, "bos_token_id": 1,
            "eos_token_id": 2, "initializer_range": 0.02, "torch_dtype": "float32"
        });
        let folder = folder.join(name);
        files::create_dir_all(&folder)?;
        let parts = [("config.json", config), ("tokenizer.json", tokenizer_json())];
        for (file, content) in parts.into_iter().chain([("tokenizer_config.json", tokenizer_config.clone())])
        {
            files::write_atomic(&folder.join(file), format!("{content:#}\n").as_bytes())?;
        }
    }
    Ok(())
}

fn write_rows(path: &Path, rows: usize, row: impl Fn(usize) -> Value) -> Result<()> {
    files::create_dir_all(path.parent().expect("a file in a folder"))?;
    files::write_atomic_with(path, |file| {
        (0..rows).try_for_each(|i| writeln!(file, "{}", row(i))).map_err(oaif::Error::io("write", path))
    })
}
