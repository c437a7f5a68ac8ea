//! `oaif models`.

#[cfg(feature = "http")]
use std::path::Path;

use serde_json::json;

use crate::cli::args::ModelsPlan;
use crate::cli::print;
use crate::error::Result;
#[cfg(feature = "http")]
use crate::error::size;
#[cfg(feature = "http")]
use crate::hub::{CachedModel, Settings, cached_models};
#[cfg(feature = "http")]
use crate::model::ModelConfig;
#[cfg(feature = "http")]
use crate::model::adapter_storage::ADAPTER_CONFIG;
use crate::model::families::FAMILIES;
#[cfg(feature = "http")]
use crate::model::tensor_source::TensorSource;

pub fn run(plan: ModelsPlan) -> Result<()> {
    if plan.json {
        for family in FAMILIES {
            let (name, models) = (family.architecture, family.models);
            print(json!({"family": name, "model_type": family.model_type, "models": models}))?;
        }
    } else {
        print("Supported families:")?;
        let width = FAMILIES.iter().map(|family| family.architecture.len()).max().unwrap_or(0);
        for family in FAMILIES {
            print(format!("  {:width$}  {}", family.architecture, family.models))?;
        }
    }
    in_the_cache(&plan)
}

#[cfg(not(feature = "http"))]
fn in_the_cache(_: &ModelsPlan) -> Result<()> {
    Ok(())
}

#[cfg(feature = "http")]
fn in_the_cache(plan: &ModelsPlan) -> Result<()> {
    let settings = Settings::from_env()?;
    let models = cached_models(&settings)?;
    if plan.json {
        for CachedModel { repo, commit, dir, bytes } in &models {
            let kind = kind(dir);
            let (runs, what) = (kind.is_ok(), kind.unwrap_or_else(|why| why));
            print(json!({
                "model": repo.to_string(), "commit": commit.to_string(), "path": dir, "bytes": bytes, "runs": runs,
                "what": what,
            }))?;
        }
        return Ok(());
    }
    match models.is_empty() {
        true => print(format!("\nNo models are in the cache {}.", settings.cache.display()))?,
        false => print(format!("\nModels in the cache {}:", settings.cache.display()))?,
    }
    let width = models.iter().map(|model| model.repo.to_string().len()).max().unwrap_or(0);
    for CachedModel { repo, dir, bytes, .. } in &models {
        let what = match kind(dir) {
            Ok(what) => what,
            Err(why) => format!("not supported: {why}"),
        };
        print(format!("  {:width$}  {:>10}  {what}", repo.to_string(), size(*bytes)))?;
    }
    Ok(())
}

/// The kind of model in a folder of the cache, or why it is not supported.
#[cfg(feature = "http")]
fn kind(dir: &Path) -> Result<String, String> {
    if dir.join(ADAPTER_CONFIG).exists() {
        return Ok("a LoRA adapter".into());
    }
    let config = ModelConfig::load(dir).map_err(|error| {
        // The line names the folder already.
        let text = error.to_string();
        let file = dir.join("config.json").display().to_string();
        text.replace(&file, "config.json").replace(&dir.display().to_string(), "it")
    })?;
    let mut what = config.name.clone();
    if !TensorSource::is_at(dir).unwrap_or(false) {
        what.push_str(", without weights");
    }
    Ok(what)
}
