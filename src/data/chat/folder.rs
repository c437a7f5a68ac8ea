//! The chat templates in a model's folder, found as `transformers` 5 finds them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::files;

/// Templates by name, each with the file that contains it. A template without a name is "default".
pub(crate) type Templates = BTreeMap<String, (PathBuf, String)>;

/// Returns the templates of the model in `dir`: those of `chat_template.jinja` and
/// `additional_chat_templates/NAME.jinja`; without such files, those of `tokenizer_config.json`; without these, the one
/// of `chat_template.json`.
pub(crate) fn templates(dir: &Path, config: &Value) -> Result<Templates> {
    let mut templates = Templates::new();
    let default = dir.join("chat_template.jinja");
    if files::is_file(&default) {
        templates.insert("default".to_owned(), jinja(default)?);
    }
    let additional = dir.join("additional_chat_templates");
    if files::is_dir(&additional) {
        for path in files::list(&additional)? {
            if path.extension().is_some_and(|extension| extension == "jinja") {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                templates.insert(name, jinja(path)?);
            }
        }
    }
    if templates.is_empty() {
        let path = dir.join("tokenizer_config.json");
        templates = named(&path, &config["chat_template"])?;
    }
    if templates.is_empty() {
        let path = dir.join("chat_template.json");
        if let Some(processor) = files::read_json_if_present(&path)? {
            templates = named(&path, &processor["chat_template"])?;
        }
    }
    Ok(templates)
}

fn jinja(path: PathBuf) -> Result<(PathBuf, String)> {
    let source = files::read_text(&path)?;
    Ok((path, source))
}

/// Reads `"chat_template"` of a JSON file: a string, a list of `{"name", "template"}`, or an object of templates by
/// name.
fn named(path: &Path, value: &Value) -> Result<Templates> {
    let bad = || {
        let why = "\"chat_template\" is neither a string, nor a list of {\"name\", \"template\"}, nor an object of strings";
        Error::file(path, why)
    };
    let one = |name: &str, source: &Value| {
        let source = source.as_str().ok_or_else(bad)?;
        Ok((name.to_owned(), (path.to_owned(), source.to_owned())))
    };
    match value {
        Value::Null => Ok(Templates::new()),
        Value::String(_) => Ok(Templates::from([one("default", value)?])),
        Value::Array(list) => {
            list.iter().map(|t| one(t["name"].as_str().ok_or_else(bad)?, &t["template"])).collect()
        }
        Value::Object(map) => map.iter().map(|(name, source)| one(name, source)).collect(),
        _ => Err(bad()),
    }
}
