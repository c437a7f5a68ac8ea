//! Declarations of parameters and bindings, and of the functions with which kernels read rows of any length and format.

use std::fmt::Write;

use super::super::tensor::{Access, Format};
use crate::gpu::blocks::SCALED_BY;

/// A word of a kernel's `params`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Whether it is an f32; otherwise a u32.
    pub float: bool,
}

/// The element type of a binding's array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Elements {
    /// `f32`
    F32,
    /// `vec2<f32>`
    F32x2,
    /// `vec4<f32>`
    F32x4,
    /// `u32`
    U32,
    /// `vec4<u32>`
    U32x4,
    /// Rows of this format, four elements at a time: `load_NAME(at, k, len) -> vec4<f32>` returns elements k to k + 3
    /// of the row that starts at element `at`, and 0 for those from `len` on; `store_NAME(at, value, count)` writes the
    /// first `count` of four elements starting at `at`. If `aligned`, every row length is a multiple of 4.
    Rows {
        /// How elements are stored. Formats of fewer than 32 bits are always aligned.
        format: Format,
        /// Whether every `at`, `k` and `len` is a multiple of 4.
        aligned: bool,
    },
}

/// A storage binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Binding {
    /// Its name.
    pub name: &'static str,
    /// Its element type.
    pub elements: Elements,
    /// Whether the kernel writes it.
    pub access: Access,
}

impl Elements {
    fn wgsl_type(self) -> &'static str {
        match self {
            Elements::F32 => "f32",
            Elements::F32x2 => "vec2<f32>",
            Elements::F32x4 => "vec4<f32>",
            Elements::U32 => "u32",
            Elements::U32x4 => "vec4<u32>",
            Elements::Rows { format: Format::F16 | Format::Bf16, .. } => "vec2<u32>",
            Elements::Rows { format: Format::Q8 | Format::Q4, .. } => "u32",
            Elements::Rows { aligned: true, .. } => "vec4<f32>",
            Elements::Rows { aligned: false, .. } => "f32",
        }
    }

    /// Whether a tensor of this format can be bound as these elements.
    pub(in crate::unstable::gpu) fn takes(self, tensor: Format) -> bool {
        match self {
            Elements::F32 | Elements::F32x2 | Elements::F32x4 => tensor == Format::F32,
            Elements::U32 | Elements::U32x4 => tensor == Format::U32,
            Elements::Rows { format, .. } => tensor == format,
        }
    }
}

/// Returns WGSL for a word of two 16-bit numbers, the first in the low half, converted to two f32.
fn unpacked(format: Format, word: &str) -> String {
    match format {
        Format::F16 => format!("unpack2x16float({word})"),
        _ => format!("bitcast<vec2<f32>>(vec2({word} << 16u, {word} & 0xffff0000u))"),
    }
}

/// The body of a function that loads four elements starting at `at + k` from blocks as defined in
/// [`crate::gpu::blocks`]: unsigned integers, from which the middle of their range is subtracted. The conversion is
/// exact.
fn load_of_blocks(format: Format, name: &str) -> String {
    let words = format.group_words();
    let scales = words - 1;
    let (word, middle) = match format {
        Format::Q8 => (format!("{name}[group + ((element >> 2u) & 15u)]"), 128),
        _ => (format!("({name}[group + ((element >> 3u) & 7u)] >> (element & 4u)) & 0x0f0f0f0fu"), 8),
    };
    // Compilers recognise these shifts and masks as byte extraction, and some GPUs convert each byte with one
    // instruction.
    format!(
        "    let element = at + k;
    let group = (element >> 6u) * {words}u;
    let scale = unpack2x16float({name}[group + {scales}u] >> ((element >> 1u) & 16u)).x / {SCALED_BY}.0;
    let word = {word};
    let integers = (vec4(word) >> vec4(0u, 8u, 16u, 24u)) & vec4(255u);
    return (vec4<f32>(integers) - {middle}.0) * scale;"
    )
}

impl Binding {
    /// Whether the kernel's text `uses` it, by name or through its load or store function.
    pub(super) fn is_used(&self, uses: impl Fn(&str) -> bool) -> bool {
        let functions = ["load", "store"].map(|f| format!("{f}_{}", self.name));
        uses(self.name) || functions.iter().any(|f| uses(f))
    }

    /// Writes the declaration of the binding and of the functions that are used.
    pub(super) fn declare(&self, index: usize, uses: impl Fn(&str) -> bool, out: &mut String) {
        let name = self.name;
        let access = match self.access {
            Access::Read => "read",
            Access::Write => "read_write",
        };
        let kind = self.elements.wgsl_type();
        writeln!(out, "@group(0) @binding({index}) var<storage, {access}> {name}: array<{kind}>;").unwrap();
        let mut function = |what: &str, signature: &str, body: &str| {
            if uses(&format!("{what}_{name}")) {
                writeln!(out, "fn {what}_{name}{signature} {{\n{body}\n}}").unwrap();
            }
        };
        let Elements::Rows { format, aligned } = self.elements else { return };
        let load = match (format, aligned) {
            (Format::F16 | Format::Bf16, _) => format!(
                "    let words = {name}[(at + k) >> 2u];\n    return vec4({}, {});",
                unpacked(format, "words.x"),
                unpacked(format, "words.y"),
            ),
            (Format::Q8 | Format::Q4, _) => load_of_blocks(format, name),
            (_, true) => format!("    return {name}[(at + k) >> 2u];"),
            (_, false) => format!(
                "    let last = at + len - 1u;
    let v = vec4({name}[at + k], {name}[min(at + k + 1u, last)], {name}[min(at + k + 2u, last)], {name}[min(at + k + 3u, last)]);
    return select(vec4<f32>(), v, vec4(k, k + 1u, k + 2u, k + 3u) < vec4(len));"
            ),
        };
        let store = match aligned {
            true => format!("    {name}[at >> 2u] = value;"),
            false => {
                format!("    for (var i = 0u; i < count; i++) {{\n        {name}[at + i] = value[i];\n    }}")
            }
        };
        function("load", "(at: u32, k: u32, len: u32) -> vec4<f32>", &load);
        function("store", "(at: u32, value: vec4<f32>, count: u32)", &store);
    }
}

/// Writes the struct and the binding of `params`.
pub(super) fn declare_params(params: &[Parameter], out: &mut String) {
    if params.is_empty() {
        return;
    }
    out.push_str("struct Params {");
    for Parameter { name, float } in params {
        write!(out, " {name}: {},", if *float { "f32" } else { "u32" }).unwrap();
    }
    out.push_str(" }\n@group(0) @binding(0) var<uniform> params: Params;\n");
}
