//! Which GPU, how it computes, and how weights are held on it.

use std::path::PathBuf;

use clap::Args;
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
    /// GPU by its index or a part of its name, as `oaif doctor` lists them [default: $OAIF_GPU, else the fastest
    /// kind]
    #[arg(long, value_name = "INDEX|NAME")]
    gpu: Option<String>,
    /// Level of the kernels: 0 core WebGPU, which runs everywhere; 1 subgroup operations, on processors; 2 frozen float16
    /// matrices (see --base-dtype) by cooperative matrices (experimental) [default: 1 on processors that have subgroups]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(..Tier::ALL.len() as i64))]
    tier: Option<u8>,
    /// Do not try which kernels are right and fastest, nor use what was found before
    #[arg(long)]
    no_autotune: bool,
    /// Keep every runtime check of the shaders
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
    /// Opens it, with the kernels in the shapes that are fastest on it.
    pub fn open(&self) -> Result<Gpu> {
        self.open_checked().map(|(gpu, ..)| gpu)
    }

    /// As [`GpuPlan::open`], with what was found wrong: the arithmetic that was asked for, and tiles.
    pub fn open_checked(&self) -> Result<(Gpu, Option<Arithmetic>, Tuned)> {
        let gpu = Gpu::open(&self.options).wait()?;
        let tuned = self.tune(&gpu)?;
        let wrong = tuning::check_arithmetic(&gpu)?;
        if let Some(wrong) = wrong {
            warn(format_args!("{wrong} does not work on this GPU: f32 is used instead"));
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
                "{case} gives wrong results with the kernels for this GPU, so slower ones are used: update the driver"
            ));
        }
        if let Some(warning) = &tuned.warning {
            warn(warning);
        }
        Ok(tuned)
    }

    /// Chooses this rank's of the GPUs of its machine, unless one was asked for.
    pub fn choose_for(&mut self, ranks: &Ranks, found: &[GpuSummary]) {
        if self.options.gpu.is_none() && !ranks.is_alone() {
            self.options.gpu = gpu_of(ranks.local(), found);
        }
    }
}

/// Which of the machine's fastest GPUs is that of the rank of this number on it, where there are several.
fn gpu_of(local: usize, found: &[GpuSummary]) -> Option<String> {
    let best = found.iter().map(GpuSummary::preference).min()?;
    let fastest: Vec<&GpuSummary> = found.iter().filter(|gpu| gpu.preference() == best).collect();
    (fastest.len() > 1).then(|| fastest[local % fastest.len()].index.to_string())
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
    /// How to open the GPU that is asked for.
    pub fn plan(&self, profile: bool) -> GpuPlan {
        let tier = self.tier.map(|tier| Tier::ALL[tier as usize]);
        let gpu = self.gpu.clone();
        let options = GpuOptions { gpu, tier, checked: self.checked, profile, ..GpuOptions::default() };
        GpuPlan { options, autotune: !self.no_autotune }
    }
}

/// How weights are held on the GPU.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "GPU")]
#[serde(rename_all = "kebab-case")]
pub(crate) struct BaseDtypeArgs {
    /// How matrices that are not trained are held: f32, bf16, f16, in blocks of integers as q8 or q4, or auto, as the
    /// model's files have them
    #[arg(
        long,
        value_name = "FORMAT",
        visible_alias = "dtype",
        alias = "torch-dtype",
        default_value = "auto"
    )]
    base_dtype: String,
}

impl BaseDtypeArgs {
    /// `None`: as the files have them.
    pub fn plan(&self) -> Result<Option<FrozenFormat>> {
        match (self.base_dtype.as_str(), FrozenFormat::parse(&self.base_dtype)) {
            ("auto", _) => Ok(None),
            (_, Some(format)) => Ok(Some(format)),
            (other, None) => super::unusable("--base-dtype", other, "auto, f32, bf16, f16, q8 or q4"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(gpu_of(1, &two[..2]), None, "the one that is chosen anyway");
        assert_eq!(gpu_of(0, &[]), None);
    }
}
