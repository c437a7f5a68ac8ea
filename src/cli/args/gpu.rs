//! Flags of the GPU: which one, which kernels, and the format of frozen weights.

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValue;
use serde::Serialize;

use crate::Wait;
use crate::cli::console::warn;
use crate::collective::Ranks;
use crate::error::Result;
use crate::gpu::{Arithmetic, Gpu, GpuOptions, GpuSummary, Tier};
use crate::model::FrozenFormat;
use crate::tuning::{self, Tuned};

#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "GPU")]
#[serde(rename_all = "kebab-case")]
pub(crate) struct GpuArgs {
    /// GPU: an index or part of a name, as listed by `oaif doctor` [default: $OAIF_GPU, or the fastest kind]
    #[arg(long, value_name = "INDEX|NAME")]
    gpu: Option<String>,
    /// Kernel tier: 0 for core WebGPU, which runs everywhere; 1 for subgroup operations, on CPUs; 2 for cooperative matrices
    /// on frozen float16 weights (see --base-dtype; experimental) [default: 1 on CPUs with subgroups, else 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(..Tier::ALL.len() as i64))]
    tier: Option<u8>,
    /// Do not measure which kernels are correct and fastest on this GPU, and ignore cached measurements
    #[arg(long)]
    no_autotune: bool,
    /// Keep all runtime checks of the shaders
    #[arg(long, hide = true)]
    #[serde(skip)]
    checked: bool,
}

/// How to open the GPU.
#[derive(Debug)]
pub(crate) struct GpuPlan {
    pub options: GpuOptions,
    pub autotune: bool,
}

impl GpuPlan {
    /// Opens the GPU with the kernel shapes that are fastest on it.
    pub fn open(&self) -> Result<Gpu> {
        self.open_checked().map(|(gpu, ..)| gpu)
    }

    /// Like [`GpuPlan::open`]; also returns the requested arithmetic if it gives wrong results, and the tuning with its wrong
    /// tiles.
    pub fn open_checked(&self) -> Result<(Gpu, Option<Arithmetic>, Tuned)> {
        let gpu = Gpu::open(&self.options).wait()?;
        let tuned = self.tune(&gpu)?;
        let wrong = tuning::check_arithmetic(&gpu)?;
        if let Some(wrong) = wrong {
            warn(format_args!("{wrong} gives wrong results on this GPU: using f32 instead"));
        }
        Ok((gpu, wrong, tuned))
    }

    fn tune(&self, gpu: &Gpu) -> Result<Tuned> {
        if !self.autotune {
            return Ok(Tuned::default());
        }
        let tuned = tuning::tune(gpu, cache_dir().as_deref())?;
        if let Some(case) = &tuned.wrong_on_gpu {
            warn(format_args!(
                "{case} gives wrong results with the kernels for this GPU: using slower kernels; update the driver"
            ));
        }
        if let Some(warning) = &tuned.warning {
            warn(warning);
        }
        Ok(tuned)
    }

    /// Selects this rank's GPU on its machine, unless one was given.
    pub fn choose_for(&mut self, ranks: &Ranks, found: &[GpuSummary]) {
        if self.options.gpu.is_none() && !ranks.is_alone() {
            self.options.gpu = gpu_of(ranks.local(), found);
        }
    }
}

/// The index of the GPU for the rank `local` of this machine: its fastest GPUs, in turn. `None` with only one such GPU.
fn gpu_of(local: usize, found: &[GpuSummary]) -> Option<String> {
    let best = found.iter().map(GpuSummary::preference).min()?;
    let fastest: Vec<&GpuSummary> = found.iter().filter(|gpu| gpu.preference() == best).collect();
    (fastest.len() > 1).then(|| fastest[local % fastest.len()].index.to_string())
}

/// The cache folder: `OAIF_CACHE`, or `oaif` in the platform's cache folder.
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
    /// How to open the GPU.
    pub fn plan(&self, profile: bool) -> GpuPlan {
        let tier = self.tier.map(|tier| Tier::ALL[tier as usize]);
        let gpu = self.gpu.clone();
        let options = GpuOptions { gpu, tier, checked: self.checked, profile, ..GpuOptions::default() };
        GpuPlan { options, autotune: !self.no_autotune }
    }
}

/// The format of frozen weights on the GPU.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "GPU")]
#[serde(rename_all = "kebab-case")]
pub(crate) struct BaseDtypeArgs {
    /// Format of frozen weight matrices on the GPU
    #[arg(
        long,
        value_name = "FORMAT",
        visible_alias = "dtype",
        alias = "torch-dtype",
        value_parser = base_dtypes(),
        default_value = "auto"
    )]
    base_dtype: String,
}

/// The values of `--base-dtype`: `auto` and the names of a [`FrozenFormat`]. `run.json` has the name as it was given.
fn base_dtypes() -> [PossibleValue; 6] {
    [
        PossibleValue::new("auto").help("The format in the model's files"),
        PossibleValue::new("f32").aliases(["float32", "torch.float32"]),
        PossibleValue::new("bf16").aliases(["bfloat16", "torch.bfloat16"]),
        PossibleValue::new("f16").aliases(["float16", "torch.float16"]),
        PossibleValue::new("q8").alias("q8_0").help("Blocks of 8-bit integers"),
        PossibleValue::new("q4").alias("q4_0").help("Blocks of 4-bit integers"),
    ]
}

impl BaseDtypeArgs {
    /// `None`: the format of the files.
    pub fn plan(&self) -> Option<FrozenFormat> {
        FrozenFormat::parse(&self.base_dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_base_dtype_but_auto_is_a_format() {
        for value in base_dtypes() {
            for name in value.get_name_and_aliases() {
                let args = BaseDtypeArgs { base_dtype: name.into() };
                assert_eq!(args.plan().is_none(), name == "auto", "{name}");
            }
        }
    }

    #[test]
    fn each_rank_of_a_machine_gets_a_gpu_of_the_fastest_kind() {
        let gpu = |index: usize, kind: &str| GpuSummary {
            index,
            name: "x".into(),
            backend: "Vulkan".into(),
            kind: kind.into(),
            driver: String::new(),
        };
        let two = [gpu(0, "Cpu"), gpu(1, "DiscreteGpu"), gpu(2, "IntegratedGpu"), gpu(3, "DiscreteGpu")];
        let chosen = |local| gpu_of(local, &two);
        assert_eq!([0, 1, 2].map(chosen), ["1", "3", "1"].map(|index| Some(index.to_owned())));
        assert_eq!(gpu_of(1, &two[..2]), None, "the default GPU");
        assert_eq!(gpu_of(0, &[]), None);
    }
}
