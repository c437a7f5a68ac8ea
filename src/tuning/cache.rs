//! What was chosen for a device, kept for the next time.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files;
use crate::gpu::{Candidates, Gpu, ProductTile, Products, StagedTile, Tuning, UnrolledTiles};

/// A choice and what it was made for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    version: String,
    gpu: String,
    backend: String,
    pub driver: String,
    subgroup: Option<u32>,
    pub tuning: Tuning,
    /// What came out wrong and is never used, in words.
    pub wrong: Vec<String>,
    /// The case that came out wrong with the kernels for GPUs, for which reason those for processors are used.
    pub wrong_on_gpu: Option<String>,
}

impl Entry {
    /// As it is before anything was tried.
    pub fn new(gpu: &Gpu) -> Entry {
        let summary = gpu.summary();
        Entry {
            version: env!("CARGO_PKG_VERSION").into(),
            gpu: summary.name.clone(),
            backend: summary.backend.clone(),
            driver: summary.driver.clone(),
            subgroup: gpu.subgroup(),
            tuning: gpu.tuning(),
            wrong: Vec::new(),
            wrong_on_gpu: None,
        }
    }

    /// The file in this folder: one a GPU, backend and tier, whatever its driver or our version.
    pub fn file_in(&self, folder: &Path) -> PathBuf {
        let text = format!("{} {} {}", self.gpu, self.backend, self.subgroup.unwrap_or(0));
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        folder.join(format!("kernels-{}.json", text.chars().map(plain).collect::<String>()))
    }

    /// What the file has for this device, driver and version, or why it is of no use.
    pub fn read(&self, file: &Path) -> Result<Entry, String> {
        let bytes = std::fs::read(file).map_err(|e| format!("cannot be read ({e})"))?;
        let known: Entry = serde_json::from_slice(&bytes).map_err(|_| "is broken".to_owned())?;
        if (&known.version, &known.driver) != (&self.version, &self.driver) {
            return Err(format!("is for version {} and driver {}", known.version, known.driver));
        }
        let exists = match &known.tuning.products {
            Products::Unrolled(UnrolledTiles { few_rows, rows, columns }) => {
                let all = Candidates::unrolled(self.subgroup);
                all.few_rows.contains(few_rows) && all.rows.contains(rows) && all.columns.contains(columns)
            }
            Products::Staged(products) => products.chosen.iter().all(|choice| match choice.tile {
                ProductTile::Staged(tile) => StagedTile::ALL.contains(&tile),
                ProductTile::Matvec => choice.class.has(&ProductTile::Matvec),
            }),
        };
        match exists {
            true => Ok(known),
            false => Err("names variants that this version does not have".into()),
        }
    }

    /// Writes it; the error is a sentence.
    pub fn write(&self, file: &Path) -> Result<(), String> {
        let text = serde_json::to_vec_pretty(self).expect("plain data");
        files::create_dir_all(file.parent().expect("a file in a folder"))
            .and_then(|()| files::write_atomic(file, &text))
            .map_err(|e| format!("the kernels' variants are not kept for the next time: {e}"))
    }
}
