//! The formats that weights are stored in, and rounding to them.

use half::{bf16, f16};
use safetensors::Dtype;

use super::architecture::WeightSpec;
use crate::error::{Error, Result};
use crate::gpu::{Format, blocks};

/// The floating-point formats of weights: in files, and on the GPU where they are frozen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub enum FloatFormat {
    /// Single precision, the format of all computation.
    #[default]
    #[serde(rename = "float32")]
    F32,
    /// Half precision, rounded to nearest.
    #[serde(rename = "float16")]
    F16,
    /// Brain floats, rounded to nearest.
    #[serde(rename = "bfloat16")]
    Bf16,
}

/// The formats of frozen matrices on the GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrozenFormat {
    /// Floating-point numbers.
    Float(FloatFormat),
    /// 8-bit integers, with one scale per block of 32.
    Q8,
    /// 4-bit integers with one scale per block of 32 for the matrices of layers. Embeddings and the head are more
    /// sensitive and use [`FrozenFormat::Q8`].
    Q4,
}

impl From<FloatFormat> for FrozenFormat {
    fn from(format: FloatFormat) -> FrozenFormat {
        FrozenFormat::Float(format)
    }
}

impl FrozenFormat {
    /// Parses a name: that of a [`FloatFormat`], `q8` or `q4`.
    pub fn parse(name: &str) -> Option<FrozenFormat> {
        match name {
            "q8" | "q8_0" => Some(FrozenFormat::Q8),
            "q4" | "q4_0" => Some(FrozenFormat::Q4),
            _ => FloatFormat::parse(name).map(FrozenFormat::Float),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            FrozenFormat::Float(format) => format.name(),
            FrozenFormat::Q8 => "q8",
            FrozenFormat::Q4 => "q4",
        }
    }

    /// The format of a weight on the device. Vectors are always f32, since they are small. Kernels read rows in vectors
    /// of four, and integers in groups of two blocks: a matrix whose rows are not whole groups is held as f16, or as
    /// f32 if its rows are not whole vectors of four either.
    pub(super) fn on_device(self, spec: &WeightSpec) -> Format {
        let wanted = match self {
            FrozenFormat::Float(FloatFormat::F32) => Format::F32,
            FrozenFormat::Float(FloatFormat::F16) => Format::F16,
            FrozenFormat::Float(FloatFormat::Bf16) => Format::Bf16,
            FrozenFormat::Q4 if spec.of_layer => Format::Q4,
            FrozenFormat::Q4 | FrozenFormat::Q8 => Format::Q8,
        };
        let [_, cols] = spec.shape[..] else { return Format::F32 };
        let fits = |format: &Format| cols.is_multiple_of(format.row_unit());
        [wanted, Format::F16].into_iter().find(fits).unwrap_or(Format::F32)
    }
}

impl FloatFormat {
    /// Parses the name in `config.json` or the short one: `float32`, `torch.float32` or `f32`, and so on.
    pub fn parse(name: &str) -> Option<FloatFormat> {
        match name.strip_prefix("torch.").unwrap_or(name) {
            "float32" | "f32" => Some(FloatFormat::F32),
            "float16" | "f16" => Some(FloatFormat::F16),
            "bfloat16" | "bf16" => Some(FloatFormat::Bf16),
            _ => None,
        }
    }

    /// The name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            FloatFormat::F32 => "float32",
            FloatFormat::F16 => "float16",
            FloatFormat::Bf16 => "bfloat16",
        }
    }

    /// The number of bytes of an element in a file.
    pub fn bytes(self) -> usize {
        match self {
            FloatFormat::F32 => 4,
            FloatFormat::F16 | FloatFormat::Bf16 => 2,
        }
    }

    /// The format of tensors of this type; `None` for a type that weights cannot be read from.
    pub(super) fn of(dtype: Dtype) -> Option<FloatFormat> {
        match dtype {
            Dtype::F32 => Some(FloatFormat::F32),
            Dtype::F16 => Some(FloatFormat::F16),
            Dtype::BF16 => Some(FloatFormat::Bf16),
            _ => None,
        }
    }

    /// The tensor type in safetensors files.
    pub(super) fn dtype(self) -> Dtype {
        match self {
            FloatFormat::F32 => Dtype::F32,
            FloatFormat::F16 => Dtype::F16,
            FloatFormat::Bf16 => Dtype::BF16,
        }
    }

    /// Decodes the little-endian numbers of a file and appends them to `values`.
    pub(crate) fn decode(self, bytes: &[u8], values: &mut Vec<f32>) {
        match self {
            FloatFormat::F32 => values.extend(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
            FloatFormat::F16 => {
                values.extend(bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()));
            }
            FloatFormat::Bf16 => {
                values.extend(bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()));
            }
        }
    }

    /// Encodes the numbers of the tensor `name` as little-endian bytes.
    ///
    /// # Errors
    /// [`Error::Config`] for a number outside the range of this format.
    pub(crate) fn encode(self, name: &str, values: &[f32]) -> Result<Vec<u8>> {
        Ok(match self {
            FloatFormat::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            FloatFormat::F16 => to_f16(name, values)?.iter().flat_map(|v| v.to_le_bytes()).collect(),
            FloatFormat::Bf16 => to_bf16(name, values)?.iter().flat_map(|v| v.to_le_bytes()).collect(),
        })
    }
}

/// The numbers of the tensor `name`, rounded to half precision.
///
/// # Errors
/// [`Error::Config`] where a finite number would become infinite.
pub(super) fn to_f16(name: &str, values: &[f32]) -> Result<Vec<f16>> {
    round(values, f16::from_f32, f16::is_infinite).map_err(|v| {
        let why = format!("{name} holds {v}, outside the range of float16 (±65504): use bfloat16 or float32");
        Error::config("dtype", why)
    })
}

/// The numbers of the tensor `name`, rounded to brain floats.
///
/// # Errors
/// As [`to_f16`].
pub(super) fn to_bf16(name: &str, values: &[f32]) -> Result<Vec<bf16>> {
    round(values, bf16::from_f32, bf16::is_infinite).map_err(|v| {
        let range = bf16::MAX.to_f32();
        let why = format!("{name} holds {v:e}, outside the range of bfloat16 (±{range:e}): use float32");
        Error::config("dtype", why)
    })
}

/// Encodes the numbers of the tensor `name` in blocks of integers.
///
/// # Errors
/// As [`to_f16`], and for numbers that are not finite.
pub(super) fn to_blocks(name: &str, format: Format, values: &[f32]) -> Result<Vec<u32>> {
    blocks::encode(format, values).map_err(|v| {
        let why = format!("{name} holds {v:e}, which a block of integers cannot represent");
        Error::config("base-dtype", format!("{why}: use bfloat16 or float32"))
    })
}

/// The rounded numbers, or the first finite number that rounding makes infinite.
fn round<T: Copy>(
    values: &[f32],
    rounded: impl Fn(f32) -> T,
    infinite: impl Fn(T) -> bool,
) -> Result<Vec<T>, f32> {
    let one = |&v: &f32| {
        let short = rounded(v);
        if infinite(short) && v.is_finite() { Err(v) } else { Ok(short) }
    };
    values.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_a_format_is_read() {
        for format in [FloatFormat::F32, FloatFormat::F16, FloatFormat::Bf16] {
            assert_eq!(FloatFormat::parse(format.name()), Some(format));
            assert_eq!(FloatFormat::parse(&format!("torch.{}", format.name())), Some(format));
            assert_eq!(FloatFormat::of(format.dtype()), Some(format));
        }
        for other in ["float64", "int8", "auto", ""] {
            assert_eq!(FloatFormat::parse(other), None);
        }
        for other in [Dtype::F64, Dtype::F8_E4M3, Dtype::I8, Dtype::U8, Dtype::BOOL] {
            assert_eq!(FloatFormat::of(other), None);
        }
    }

    #[test]
    fn a_number_outside_the_range_of_a_format_is_an_error_that_names_tensor_and_number() {
        let why = FloatFormat::F16.encode("w", &[1.0, -65504.0, 7e4]).unwrap_err().to_string();
        assert!(why.contains("65504") && why.contains("w holds 70000"), "{why}");
        // 65519.99 still rounds to 65504; 65520 is halfway to the next, and rounds up to infinity.
        FloatFormat::F16.encode("w", &[65519.0]).unwrap();
        FloatFormat::F16.encode("w", &[-65520.0]).unwrap_err();
        let why = FloatFormat::Bf16.encode("w", &[3.4e38]).unwrap_err().to_string();
        assert!(why.contains("3.389") && why.contains("w holds 3.4e38"), "{why}");
        FloatFormat::Bf16.encode("w", &[3.389e38, 7e4]).unwrap();
        FloatFormat::F32.encode("w", &[f32::MAX]).unwrap();
    }
}
