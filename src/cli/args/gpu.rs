//! Which GPU. `--adapter` is also the word for a low-rank adapter, so its value decides which one is meant.

use std::path::{MAIN_SEPARATOR, Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::cli::say;
use crate::error::{Error, Result};
use crate::gpu::{Arithmetic, Gpu, GpuOptions, Tier};
use crate::model::FloatFormat;
use crate::ops::{self, Tuned};

#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "GPU and adapter")]
#[serde(rename_all = "kebab-case")]
pub(crate) struct GpuArgs {
    /// GPU by its index or a part of its name, as `oaif doctor` lists them [default: $OAIF_ADAPTER, else the
    /// fastest kind]
    #[arg(long, value_name = "INDEX|NAME")]
    gpu: Option<String>,
    /// A folder: the LoRA adapter to put on the model. Anything else: a GPU, as with --gpu. Can be given for both
    #[arg(long, value_name = "DIR|GPU")]
    adapter: Vec<String>,
    /// Tier of kernels: none higher than 0, which runs everywhere, or 1, subgroups; or 2, frozen float16 matrices (see --dtype) multiplied in f16, or
    /// 3, by cooperative matrices (experimental) [default: 1 where there are subgroups]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(..Tier::ALL.len() as i64))]
    tier: Option<u8>,
    /// Do not measure which shapes of the kernels are fastest, nor use what was measured before
    #[arg(long)]
    no_autotune: bool,
    /// Keep every runtime check of the shaders
    #[arg(long, hide = true)]
    checked: bool,
}

/// How to open the GPU.
#[derive(Debug)]
pub(crate) struct GpuPlan {
    pub options: GpuOptions,
    pub autotune: bool,
}

impl GpuPlan {
    /// Opens it, with the kernels in the shapes that are fastest on it.
    pub fn open(&self) -> Result<Gpu> {
        self.open_checked().map(|(gpu, ..)| gpu)
    }

    /// As [`GpuPlan::open`], with what was found wrong: the arithmetic that was asked for, and tiles.
    pub fn open_checked(&self) -> Result<(Gpu, Option<Arithmetic>, Tuned)> {
        let gpu = Gpu::open(&self.options)?;
        let tuned = self.tune(&gpu)?;
        let wrong = ops::check_arithmetic(&gpu)?;
        if let Some(wrong) = wrong {
            say(format_args!("oaif: warning: {wrong} does not work on this adapter: f32 is used instead"));
        }
        Ok((gpu, wrong, tuned))
    }

    fn tune(&self, gpu: &Gpu) -> Result<Tuned> {
        if !self.autotune {
            return Ok(Tuned::default());
        }
        let tuned = ops::tune(gpu, cache_dir().as_deref())?;
        if let Some(case) = &tuned.wrong_in_subgroups {
            say(format_args!(
                "oaif: warning: {case} came out wrong in subgroups, which are not used: update the driver"
            ));
        }
        if let Some(warning) = &tuned.warning {
            say(format_args!("oaif: warning: {warning}"));
        }
        Ok(tuned)
    }
}

/// The user's folder for what can be made again: `OAIF_CACHE`, or the platform's own.
fn cache_dir() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let platform = || match cfg!(windows) {
        true => folder("LOCALAPPDATA"),
        false if cfg!(target_os = "macos") => folder("HOME").map(|home| home.join("Library/Caches")),
        false => folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache"))),
    };
    folder("OAIF_CACHE").or_else(|| platform().map(|dir| dir.join("oaif")))
}

impl GpuArgs {
    /// The LoRA adapter's folder, if one is asked for, and the GPU.
    pub fn plan(&self, profile: bool) -> Result<(Option<PathBuf>, GpuPlan)> {
        let (folders, names): (Vec<&String>, Vec<&String>) = self.adapter.iter().partition(|v| is_folder(v));
        let names: Vec<&String> = names.into_iter().chain(&self.gpu).collect();
        let twice = |kind: &str, values: &[&String]| {
            Err(Error::config("--adapter", format!("two {kind} are given, {} and {}", values[0], values[1])))
        };
        if names.len() > 1 {
            return twice("GPUs", &names);
        }
        if folders.len() > 1 {
            return twice("LoRA adapters", &folders);
        }
        let folder = folders.first().map(PathBuf::from);
        if let Some(folder) = &folder {
            let expected = "the folder of a LoRA adapter (adapter_config.json, adapter_model.safetensors)";
            super::ensure(folder.is_dir(), "--adapter", folder.display(), expected)?;
        }
        let adapter = names.first().map(|name| name.to_string());
        let tier = self.tier.map(|tier| Tier::ALL[tier as usize]);
        let options = GpuOptions { adapter, tier, checked: self.checked, profile, ..GpuOptions::default() };
        Ok((folder, GpuPlan { options, autotune: !self.no_autotune }))
    }

    /// The GPU, for a command without a model that an adapter could go on.
    pub fn gpu_only(&self) -> Result<GpuPlan> {
        match self.plan(false)? {
            (None, gpu) => Ok(gpu),
            (Some(folder), _) => {
                let why = format!(
                    "{} is a folder, and there is no model here to put a LoRA adapter on: choose a GPU by --gpu",
                    folder.display()
                );
                Err(Error::config("--adapter", why))
            }
        }
    }
}

/// How weights lie on the GPU.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "GPU and adapter")]
#[serde(rename_all = "kebab-case")]
pub(crate) struct DtypeArgs {
    /// How matrices that are not trained are held: float32, bfloat16, float16, or auto, as the model's files have them
    #[arg(long, value_name = "FORMAT", aliases = ["torch-dtype", "torch_dtype"], default_value = "auto")]
    dtype: String,
}

impl DtypeArgs {
    /// `None`: as the files have them.
    pub fn plan(&self) -> Result<Option<FloatFormat>> {
        match (self.dtype.as_str(), FloatFormat::parse(&self.dtype)) {
            ("auto", _) => Ok(None),
            (_, Some(format)) => Ok(Some(format)),
            (other, None) => super::unusable("--dtype", other, "auto, float32, bfloat16 or float16"),
        }
    }
}

fn is_folder(value: &str) -> bool {
    value.contains(['/', MAIN_SEPARATOR]) || Path::new(value).is_dir()
}
