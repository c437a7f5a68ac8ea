//! The statistics of a compiled kernel, stored as one line of JSON each.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::main_loop::MainLoop;

/// The GPU that a driver reports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Device {
    pub name: String,
    pub driver: String,
    /// Lanes per subgroup, smallest and largest.
    pub subgroups: (u32, u32),
}

/// A kernel and the driver's statistics of it.
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
        /// Milliseconds of CPU time, from WGSL to the GPU's code.
        ms: f64,
        /// All statistics of the driver, under its own names.
        statistics: Vec<(String, f64)>,
        /// Set if the driver lists its code and the format of the listing is known.
        main_loop: Option<MainLoop>,
    },
}

/// The files of a device's folder.
pub const DEVICE: &str = "device.json";
pub const KERNELS: &str = "kernels.jsonl";

/// A quantity that drivers have different names for.
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
    /// The names in RADV, NVK, Honeykrisp and ANV, and our own. If a driver has several of them, they are added.
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

    /// Returns the number from a driver's statistics, if it is there.
    pub fn of(self, statistics: &[(String, f64)]) -> Option<f64> {
        let known = statistics.iter().filter(|(name, _)| self.names().contains(&name.as_str()));
        known.map(|(_, value)| *value).reduce(|a, b| a + b)
    }
}

/// Reads a file of the folder; `None` if it does not exist.
pub fn read(dir: &Path, file: &str) -> Result<Option<String>> {
    match fs::read_to_string(dir.join(file)) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(format!("{}: {e}", dir.join(file).display()).into()),
    }
}
