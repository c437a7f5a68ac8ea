//! Llama models of real size against transformers and peft in f32. `fixtures/real_size.py FOLDER` makes them with
//! random weights (3 GB), `OAIF_REAL_SIZE=FOLDER cargo test --test real_size -- --nocapture` compares (4 GB of memory).

mod common;

use std::io::Write;
use std::path::PathBuf;

use common::{gpu, parity};

#[test]
fn models_of_real_size_give_the_results_of_transformers() {
    let Some(folder) = std::env::var_os("OAIF_REAL_SIZE").map(PathBuf::from) else {
        let _ = writeln!(
            std::io::stderr(),
            "skipped: OAIF_REAL_SIZE is not set to a folder with models of real size"
        );
        return;
    };
    let Some(gpu) = gpu() else { return };
    for name in ["llama-135m", "llama-d128"] {
        parity::check(&gpu, &folder.join(name));
    }
}
