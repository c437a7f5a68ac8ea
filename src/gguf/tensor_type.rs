//! The tensor types of GGUF: their blocks, their names for messages, and the decoders of the supported ones.

use std::fmt::Debug;

use super::blocks;
use crate::model::FloatFormat;

/// Decodes whole blocks and appends their elements.
type Decode = fn(&[u8], &mut Vec<f32>);

/// The storage of the elements of a tensor: blocks along its rows.
pub(crate) struct TensorType {
    id: u32,
    /// The name in llama.cpp.
    pub name: &'static str,
    /// The number of elements in a block.
    pub block: usize,
    /// The size of a block in bytes.
    pub bytes: usize,
    /// Appends the elements of whole blocks; `None` for a type that is not supported.
    decode: Option<Decode>,
}

impl PartialEq for TensorType {
    fn eq(&self, other: &TensorType) -> bool {
        self.id == other.id
    }
}

impl Debug for TensorType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// 32-bit floats.
pub(crate) const F32: TensorType =
    read(0, "f32", 1, 4, |bytes, values| FloatFormat::F32.decode(bytes, values));
/// Half precision.
pub(crate) const F16: TensorType =
    read(1, "f16", 1, 2, |bytes, values| FloatFormat::F16.decode(bytes, values));
/// Brain floats.
pub(crate) const BF16: TensorType =
    read(30, "bf16", 1, 2, |bytes, values| FloatFormat::Bf16.decode(bytes, values));
/// Blocks of 32 integers of 8 bits with a scale.
pub(crate) const Q8_0: TensorType = read(8, "q8_0", 32, 34, blocks::q8_0);

/// All types of GGUF; those with a decoder are supported. The missing numbers were withdrawn.
static TYPES: [TensorType; 34] = [
    F32,
    F16,
    BF16,
    Q8_0,
    read(2, "q4_0", 32, 18, blocks::q4_0),
    read(12, "q4_k", 256, 144, blocks::q4_k),
    read(14, "q6_k", 256, 210, blocks::q6_k),
    other(3, "q4_1", 32, 20),
    other(6, "q5_0", 32, 22),
    other(7, "q5_1", 32, 24),
    other(9, "q8_1", 32, 36),
    other(10, "q2_k", 256, 84),
    other(11, "q3_k", 256, 110),
    other(13, "q5_k", 256, 176),
    other(15, "q8_k", 256, 292),
    other(16, "iq2_xxs", 256, 66),
    other(17, "iq2_xs", 256, 74),
    other(18, "iq3_xxs", 256, 98),
    other(19, "iq1_s", 256, 50),
    other(20, "iq4_nl", 32, 18),
    other(21, "iq3_s", 256, 110),
    other(22, "iq2_s", 256, 82),
    other(23, "iq4_xs", 256, 136),
    other(24, "i8", 1, 1),
    other(25, "i16", 1, 2),
    other(26, "i32", 1, 4),
    other(27, "i64", 1, 8),
    other(28, "f64", 1, 8),
    other(29, "iq1_m", 256, 56),
    other(34, "tq1_0", 256, 54),
    other(35, "tq2_0", 256, 66),
    other(39, "mxfp4", 32, 17),
    other(40, "nvfp4", 64, 36),
    other(41, "q1_0", 128, 18),
];

const fn read(id: u32, name: &'static str, block: usize, bytes: usize, decode: Decode) -> TensorType {
    TensorType { id, name, block, bytes, decode: Some(decode) }
}

const fn other(id: u32, name: &'static str, block: usize, bytes: usize) -> TensorType {
    TensorType { id, name, block, bytes, decode: None }
}

impl TensorType {
    /// Returns the type with this number.
    pub fn of(id: u32) -> Option<&'static TensorType> {
        TYPES.iter().find(|kind| kind.id == id)
    }

    /// The number of the type.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Whether tensors of this type are supported.
    pub fn is_read(&self) -> bool {
        self.decode.is_some()
    }

    /// The names of the supported types, for a message.
    pub fn read_ones() -> String {
        let names: Vec<&str> = TYPES.iter().filter(|kind| kind.is_read()).map(|kind| kind.name).collect();
        names.join(", ")
    }

    /// Decodes `bytes`, which are whole blocks, and appends the elements.
    pub fn decode(&self, bytes: &[u8], values: &mut Vec<f32>) {
        self.decode.expect("a type that is read")(bytes, values);
    }
}
