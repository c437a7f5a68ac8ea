//! How kernels that go element by element share out their work.

use crate::gpu::{Dim, Groups};

/// Workgroups of an elementwise kernel on (rows, cols), as shaders/shared/elements.wgsl shares the elements out.
pub(super) fn elements(rows: Dim, cols: usize) -> Groups {
    match cols.div_ceil(4) as u32 {
        across @ 256.. => Groups::over(rows, 1).times(across.div_ceil(256)),
        across => Groups::over(rows, (256 / across).min(64)),
    }
}
