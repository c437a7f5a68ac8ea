//! How elementwise kernels divide their work.

use crate::gpu::{Dim, Groups};

/// The workgroups of an elementwise kernel on (rows, cols), which shaders/shared/elements.wgsl divides the elements
/// among.
pub(super) fn elements(rows: Dim, cols: usize) -> Groups {
    match cols.div_ceil(4) as u32 {
        across @ 256.. => Groups::over(rows, 1).times(across.div_ceil(256)),
        across => Groups::over(rows, (256 / across).min(64)),
    }
}
