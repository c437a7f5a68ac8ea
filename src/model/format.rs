//! The formats that weights are stored in, and rounding to them.

use half::{bf16, f16};
use safetensors::Dtype;

use crate::error::{Error, Result};

/// How weights are stored: in files, and on the GPU where they are frozen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub enum FloatFormat {
    /// As computed.
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

impl FloatFormat {
    /// By its name in `config.json` or the short one: `float32`, `torch.float32` or `f32`, and so on.
    pub fn parse(name: &str) -> Option<FloatFormat> {
        match name.strip_prefix("torch.").unwrap_or(name) {
            "float32" | "f32" => Some(FloatFormat::F32),
            "float16" | "f16" => Some(FloatFormat::F16),
            "bfloat16" | "bf16" => Some(FloatFormat::Bf16),
            _ => None,
        }
    }

    /// What `config.json` calls it.
    pub fn name(self) -> &'static str {
        match self {
            FloatFormat::F32 => "float32",
            FloatFormat::F16 => "float16",
            FloatFormat::Bf16 => "bfloat16",
        }
    }

    /// Bytes of an element in a file.
    pub fn bytes(self) -> usize {
        match self {
            FloatFormat::F32 => 4,
            FloatFormat::F16 | FloatFormat::Bf16 => 2,
        }
    }

    /// The format of tensors of this type; `None` for a type that no weight is read from.
    pub(super) fn of(dtype: Dtype) -> Option<FloatFormat> {
        match dtype {
            Dtype::F32 => Some(FloatFormat::F32),
            Dtype::F16 => Some(FloatFormat::F16),
            Dtype::BF16 => Some(FloatFormat::Bf16),
            _ => None,
        }
    }

    /// Its type in a file.
    pub(super) fn dtype(self) -> Dtype {
        match self {
            FloatFormat::F32 => Dtype::F32,
            FloatFormat::F16 => Dtype::F16,
            FloatFormat::Bf16 => Dtype::BF16,
        }
    }

    /// Numbers of a file, little endian.
    pub(super) fn decode(self, bytes: &[u8], values: &mut Vec<f32>) {
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

    /// The numbers of the tensor `name` as a file holds them.
    ///
    /// # Errors
    /// [`Error::Config`] for a number that this format has no room for.
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
/// [`Error::Config`] where that would make infinity of a number.
pub(super) fn to_f16(name: &str, values: &[f32]) -> Result<Vec<f16>> {
    round(values, f16::from_f32, f16::is_infinite).map_err(|v| {
        let why = format!("float16 ends at 65504, and {name} holds {v}: take bfloat16 or float32");
        Error::config("dtype", why)
    })
}

/// The numbers of the tensor `name`, rounded to brain floats.
///
/// # Errors
/// As [`to_f16`].
pub(super) fn to_bf16(name: &str, values: &[f32]) -> Result<Vec<bf16>> {
    round(values, bf16::from_f32, bf16::is_infinite).map_err(|v| {
        let why = format!("bfloat16 ends at {:e}, and {name} holds {v:e}: take float32", bf16::MAX.to_f32());
        Error::config("dtype", why)
    })
}

/// The rounded numbers, or the first that becomes infinite by it.
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
    fn a_number_beyond_a_format_is_refused_by_tensor_and_number() {
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
