//! Validates kernels without a GPU.

use super::key::KernelKey;
use super::text::assemble;
use crate::error::{Error, Result};

/// Parses and validates a kernel on the CPU.
///
/// # Errors
/// [`Error::Shader`] with naga's message and the line.
pub fn validate(key: &KernelKey) -> Result<naga::Module> {
    let source = assemble(key)?;
    let fail = |why: String| Error::Shader { kernel: key.name.into(), why };
    let module = naga::front::wgsl::parse_str(&source).map_err(|e| fail(e.emit_to_string(&source)))?;
    use naga::valid::Capabilities;
    let capabilities = Capabilities::SUBGROUP
        | Capabilities::SHADER_FLOAT16
        | Capabilities::SHADER_FLOAT16_IN_FLOAT32
        | Capabilities::COOPERATIVE_MATRIX;
    naga::valid::Validator::new(naga::valid::ValidationFlags::all(), capabilities)
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(naga::valid::SubgroupOperationSet::all())
        .validate(&module)
        .map_err(|e| fail(e.emit_to_string(&source)))?;
    Ok(module)
}
