//! What is known of a compiled kernel, and how it is kept: a line of JSON each.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::main_loop::MainLoop;

/// The GPU that a driver took itself to run on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Device {
    pub name: String,
    pub driver: String,
    /// Lanes of its subgroups: fewest and most.
    pub subgroups: (u32, u32),
}

/// A kernel and what a driver says of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compiled {
    pub file: String,
    pub kernel: String,
    pub constants: Vec<(String, String)>,
    pub steps: Vec<String>,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Failed(String),
    Compiled {
        /// Milliseconds of a processor, from WGSL to the GPU's code.
        ms: f64,
        /// Everything that the driver tells, by the names that it uses.
        statistics: Vec<(String, f64)>,
        /// Where the driver lists its code and the format of the listing is known.
        main_loop: Option<MainLoop>,
    },
}

/// The files of a device's folder.
pub const DEVICE: &str = "device.json";
pub const KERNELS: &str = "kernels.jsonl";

/// What a driver's name for a number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    SubgroupLanes,
    Registers,
    Spills,
    ScratchBytes,
    WorkgroupBytes,
    Occupancy,
    Instructions,
    CodeBytes,
}

impl Quantity {
    /// Its names in RADV, NVK, Honeykrisp and ANV, and ours. Those that a driver has are added up.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Quantity::SubgroupLanes => &["subgroup lanes"],
            Quantity::Registers => &["VGPRs", "Number of GPRs", "GPRs", "Max live registers"],
            Quantity::Spills => {
                &["Spilled SGPRs", "Spilled VGPRs", "Spills to memory", "Spills", "Spill count"]
            }
            Quantity::ScratchBytes => &["Scratch size", "SLM size", "Scratch Memory Size", "Scratch"],
            Quantity::WorkgroupBytes => &["LDS size", "Workgroup Memory Size", "workgroup bytes in WGSL"],
            Quantity::Occupancy => &["Subgroups per SIMD", "Max warps/SM", "Threads", "Max dispatch width"],
            Quantity::Instructions => &["Instructions", "Instruction count", "Instruction Count"],
            Quantity::CodeBytes => &["Code size", "Code Size"],
        }
    }

    /// The number among a driver's statistics, where it tells.
    pub fn of(self, statistics: &[(String, f64)]) -> Option<f64> {
        let known = statistics.iter().filter(|(name, _)| self.names().contains(&name.as_str()));
        known.map(|(_, value)| *value).reduce(|a, b| a + b)
    }
}

/// Reads a file of the folder; `None` where it is not there.
pub fn read(dir: &Path, file: &str) -> Result<Option<String>> {
    match fs::read_to_string(dir.join(file)) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(format!("{}: {e}", dir.join(file).display()).into()),
    }
}
