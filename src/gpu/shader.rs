//! The kernels' sources: one WGSL file each, assembled from snippets, validated without a GPU, compiled once.

use std::collections::HashMap;
use std::sync::Arc;

use super::adapter::Gpu;
use crate::error::{Error, Result};

/// Lists shader files by name, so that a missing one does not compile.
macro_rules! sources {
    ($folder:literal: $($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../shaders/", $folder, $name, ".wgsl")))),*]
    };
}

/// Every kernel: its name and its source. The file, the kernel's label and the function of `reference` share it.
pub const KERNELS: &[(&str, &str)] = sources!["":
    "adafactor_cols",
    "adafactor_moments",
    "adafactor_rows",
    "adafactor_update",
    "adamw",
    "attention_backward_key_value",
    "attention_backward_query",
    "attention_decode",
    "attention_forward",
    "decode_advance",
    "gated_backward",
    "gated_forward",
    "gather_rows",
    "gather_rows_backward",
    "global_norm",
    "linear_backward_input",
    "linear_backward_weight",
    "linear_forward",
    "logprob_backward",
    "logprob_forward",
    "multiply_add_ceiling",
    "preference_loss",
    "qkv_forward",
    "reduce_slices",
    "residual_add",
    "rmsnorm_backward",
    "rmsnorm_forward",
    "sample",
    "segment_sum",
    "segment_sum_backward",
    "sum_squares",
];

/// What kernels include by `//#include name`.
const SNIPPETS: &[(&str, &str)] = sources!["shared/":
    "attend",
    "attention",
    "cooperative",
    "element",
    "elements",
    "load",
    "load_weight",
    "normalise",
    "product_addresses",
    "product_cols",
    "product_cooperative",
    "product_half",
    "product_rows",
    "product_stage",
    "product_weight",
    "random",
    "sigmoid",
    "spans",
    "step",
    "store",
    "tile",
    "tile_lane",
    "tile_rows",
    "tile_store",
    "turn_back",
    "widen",
    "workgroup_sum",
];

/// A kernel and the constants that it is specialised with, each written `const NAME: u32 = value;` before it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KernelKey {
    /// Name of the kernel's file.
    pub name: &'static str,
    /// Constants in a fixed order.
    pub constants: Vec<(&'static str, u32)>,
}

/// How a kernel uses its bindings, read off its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Bytes of the uniform `params`, 0 where there is none.
    pub params_bytes: u32,
    /// Storage bindings in order; true where the kernel writes.
    pub writes: Vec<bool>,
}

/// A compiled kernel.
pub struct Kernel {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
    pub(super) interface: Interface,
}

/// What a kernel with one of these constants begins with.
const DIRECTIVES: [(&str, &str); 3] = [
    ("HALF", "enable f16;"),
    ("COOPERATIVE", "enable wgpu_cooperative_matrix;"),
    // naga takes whatever a function returns for different in every invocation, the workgroup's place for one, and wants
    // the same control flow in all of them; this is its way to be told.
    ("COOPERATIVE", "diagnostic(off, derivative_uniformity);"),
];

fn find(table: &'static [(&str, &'static str)], name: &str) -> Option<&'static str> {
    table.iter().find(|(n, _)| *n == name).map(|(_, source)| *source)
}

/// The kernel's whole source: its constants, then its text with every directive carried out.
///
/// Directives stand on lines of their own and nest:
/// `//#include snippet KEY=text …` puts a snippet there, with `${KEY}` replaced by the text;
/// `//#if NAME` … `//#else` … `//#end` keeps the lines where the constant NAME is there and not 0;
/// `//#for i in LIMIT` … `//#end` repeats the lines with `${i}` = 0, 1, … below LIMIT, a constant or a number.
///
/// # Errors
/// [`Error::Shader`] for an unknown kernel or snippet.
pub fn assemble(key: &KernelKey) -> Result<String> {
    let fail = |why: String| Error::Shader { kernel: key.name.into(), why };
    let text = find(KERNELS, key.name).ok_or_else(|| fail("there is no such kernel".into()))?;
    let mut out = String::with_capacity(text.len() * 2);
    for (constant, directive) in DIRECTIVES {
        if key.constants.iter().any(|(name, value)| *name == constant && *value != 0) {
            out.push_str(directive);
            out.push('\n');
        }
    }
    for (name, value) in &key.constants {
        out.push_str(&format!("const {name}: u32 = {value}u;\n"));
    }
    let lines: Vec<&str> = text.lines().collect();
    expand(&lines, &key.constants, &mut out).map_err(fail)?;
    Ok(out)
}

/// Writes `lines` to `out` with their directives carried out.
fn expand(lines: &[&str], constants: &[(&'static str, u32)], out: &mut String) -> Result<(), String> {
    let value = |name: &str| constants.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        at += 1;
        let Some((directive, rest)) =
            line.trim_start().strip_prefix("//#").map(|d| d.split_once(' ').unwrap_or((d, "")))
        else {
            out.push_str(line);
            out.push('\n');
            continue;
        };
        match directive {
            "include" => {
                let mut words = rest.split_whitespace();
                let name = words.next().unwrap_or_default();
                let mut text =
                    find(SNIPPETS, name).ok_or_else(|| format!("unknown snippet {name:?}"))?.to_owned();
                for (key, with) in words.filter_map(|w| w.split_once('=')) {
                    text = text.replace(&format!("${{{key}}}"), with);
                }
                expand(&text.lines().collect::<Vec<_>>(), constants, out)?;
            }
            "if" => {
                let (middle, end) = block(lines, at)?;
                let keep = value(rest.trim()).is_some_and(|v| v != 0);
                let kept = if keep { at..middle } else { (middle + 1).min(end)..end };
                expand(&lines[kept], constants, out)?;
                at = end + 1;
            }
            "for" => {
                let (_, end) = block(lines, at)?;
                let (name, limit) = rest.split_once(" in ").ok_or_else(|| format!("cannot read {line:?}"))?;
                let limit = value(limit.trim()).or(limit.trim().parse().ok());
                let body = lines[at..end].join("\n");
                for i in 0..limit.ok_or_else(|| format!("an unknown limit in {line:?}"))? {
                    let body = body.replace(&format!("${{{}}}", name.trim()), &i.to_string());
                    expand(&body.lines().collect::<Vec<_>>(), constants, out)?;
                }
                at = end + 1;
            }
            _ => return Err(format!("cannot read {line:?}")),
        }
    }
    Ok(())
}

/// The lines of the `//#else` (or the end, without one) and of the `//#end` that belong to a block opened before `at`.
fn block(lines: &[&str], at: usize) -> Result<(usize, usize), String> {
    let (mut depth, mut middle) = (0, None);
    for (i, line) in lines.iter().enumerate().skip(at) {
        let line = line.trim();
        if line.starts_with("//#if ") || line.starts_with("//#for ") {
            depth += 1;
        } else if line == "//#else" && depth == 0 {
            middle = Some(i);
        } else if line == "//#end" {
            if depth == 0 {
                return Ok((middle.unwrap_or(i), i));
            }
            depth -= 1;
        }
    }
    Err("a block has no //#end".into())
}

/// Parses and validates a kernel on the host and reads its interface.
///
/// # Errors
/// [`Error::Shader`] with naga's message and the line.
pub fn validate(key: &KernelKey) -> Result<(naga::Module, Interface)> {
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
    let interface = interface(&module).map_err(fail)?;
    Ok((module, interface))
}

fn interface(module: &naga::Module) -> Result<Interface, String> {
    let mut bindings: HashMap<u32, (Option<bool>, u32)> = HashMap::new();
    for (_, global) in module.global_variables.iter() {
        let Some(at) = &global.binding else { continue };
        if at.group != 0 {
            continue;
        }
        let bytes = module.types[global.ty].inner.size(module.to_ctx());
        let writes = match global.space {
            naga::AddressSpace::Uniform => None,
            naga::AddressSpace::Storage { access } => Some(access.contains(naga::StorageAccess::STORE)),
            space => return Err(format!("binding {} lies in {space:?}", at.binding)),
        };
        bindings.insert(at.binding, (writes, bytes));
    }
    let params_bytes = match bindings.get(&0) {
        Some((None, bytes)) => *bytes,
        _ => return Err("binding 0 must be the uniform params".into()),
    };
    let writes = (1..bindings.len() as u32)
        .map(|b| {
            bindings.get(&b).and_then(|(w, _)| *w).ok_or_else(|| format!("binding {b} is no storage buffer"))
        })
        .collect::<Result<Vec<bool>, String>>()?;
    Ok(Interface { params_bytes, writes })
}

impl Gpu {
    /// The compiled kernel, from the cache where it is there already.
    pub(super) fn kernel(&self, key: &KernelKey) -> Result<Arc<Kernel>> {
        if let Some(kernel) = self.inner.kernels.lock().unwrap().get(key) {
            return Ok(kernel.clone());
        }
        let kernel = Arc::new(self.compile(key)?);
        self.inner.kernels.lock().unwrap().insert(key.clone(), kernel.clone());
        Ok(kernel)
    }

    fn compile(&self, key: &KernelKey) -> Result<Kernel> {
        let (module, interface) = validate(key)?;
        let device = self.device();
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(key.name),
            source: wgpu::ShaderSource::Naga(std::borrow::Cow::Owned(module)),
        };
        let module = match self.inner.checked {
            true => device.create_shader_module(descriptor),
            // SAFETY: every kernel bounds its own indices by the extents in its parameters, and the tests run
            // all of them with the checks on as well.
            false => unsafe {
                device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
            },
        };
        let entry = |binding, ty, dynamic| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: dynamic, min_binding_size: None },
            count: None,
        };
        let mut entries = vec![entry(0, wgpu::BufferBindingType::Uniform, false)];
        for (i, writes) in interface.writes.iter().enumerate() {
            let ty = wgpu::BufferBindingType::Storage { read_only: !writes };
            entries.push(entry(i as u32 + 1, ty, false));
        }
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(key.name),
            entries: &entries,
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(key.name),
            bind_group_layouts: &[Some(&layout), self.inner.step_layout.as_ref()],
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(key.name),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        self.count(|c| c.pipelines += 1);
        match pollster::block_on(scope.pop()) {
            Some(e) => Err(Error::Shader { kernel: key.name.into(), why: e.to_string() }),
            None => Ok(Kernel { pipeline, layout, interface }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_in_shaders_is_listed() {
        for (folder, table) in [("shaders", KERNELS), ("shaders/shared", SNIPPETS)] {
            let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
            let mut files: Vec<String> = std::fs::read_dir(root)
                .unwrap()
                .map(|e| e.unwrap().path())
                .filter(|p| p.is_file())
                .map(|p| p.file_stem().unwrap().to_str().unwrap().to_owned())
                .collect();
            files.sort();
            let mut listed: Vec<String> = table.iter().map(|(n, _)| n.to_string()).collect();
            listed.sort();
            assert_eq!(files, listed, "{folder}");
        }
    }

    #[test]
    fn unknown_kernels_and_snippets_are_errors() {
        let key = KernelKey { name: "no_such_kernel", constants: vec![] };
        assert!(matches!(assemble(&key), Err(Error::Shader { .. })));
    }

    #[test]
    fn directives_nest() {
        let text = "//#for i in TWO\n//#if ON\na${i}\n//#else\nb\n//#end\n//#if OFF\nc\n//#else\nd${i}\n//#end\n//#end\ne";
        let mut out = String::new();
        expand(&text.lines().collect::<Vec<_>>(), &[("TWO", 2), ("ON", 1), ("OFF", 0)], &mut out).unwrap();
        assert_eq!(out, "a0\nd0\na1\nd1\ne\n");
        for broken in ["//#if ON", "//#for i in THREE\n//#end", "//#nothing"] {
            assert!(
                expand(&broken.lines().collect::<Vec<_>>(), &[], &mut String::new()).is_err(),
                "{broken}"
            );
        }
    }
}
