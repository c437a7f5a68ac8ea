//! The tuning cache: the variants chosen for a device.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files;
use crate::gpu::{Candidates, Gpu, ProductTile, Products, StagedTile, Tuning, UnrolledTiles};

/// The chosen variants and the device they were chosen for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    version: String,
    gpu: String,
    backend: String,
    pub driver: String,
    subgroup: Option<u32>,
    pub tuning: Tuning,
    /// Tiles with wrong results, as text: they are never used.
    pub wrong: Vec<String>,
    /// The case for which the kernels for GPUs gave wrong results, so that those for CPUs are used.
    pub wrong_on_gpu: Option<String>,
}

impl Entry {
    /// The entry before anything was measured.
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

    /// Returns the file in this folder: one per GPU, backend and tier, for all drivers and versions.
    pub fn file_in(&self, folder: &Path) -> PathBuf {
        let text = format!("{} {} {}", self.gpu, self.backend, self.subgroup.unwrap_or(0));
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        folder.join(format!("kernels-{}.json", text.chars().map(plain).collect::<String>()))
    }

    /// Reads the file's entry for this device, driver and version, or returns why it cannot be used.
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
            false => Err("contains variants that this version does not have".into()),
        }
    }

    /// Writes it; the error is a complete sentence.
    pub fn write(&self, file: &Path) -> Result<(), String> {
        let text = serde_json::to_vec_pretty(self).expect("plain data");
        files::create_dir_all(file.parent().expect("a file in a folder"))
            .and_then(|()| files::write_atomic(file, &text))
            .map_err(|e| format!("cannot save the tuned kernel variants: {e}"))
    }
}
