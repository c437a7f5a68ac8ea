//! The GPU of unit tests.

use super::{Gpu, GpuOptions};
use crate::Wait;

/// A device of its own for a test. Without a GPU the test is skipped, which is an error if `REQUIRE_GPU` is set.
pub(crate) fn gpu() -> Option<Gpu> {
    let opened = Gpu::open(&GpuOptions::default()).wait().ok();
    if opened.is_none() {
        assert!(std::env::var("REQUIRE_GPU").is_err(), "no GPU");
        eprintln!("SKIPPED: no GPU");
    }
    opened
}
