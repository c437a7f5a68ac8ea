//! Export of models to GGUF files, equivalent to llama.cpp's converter.

use std::collections::HashMap;
use std::path::Path;

use super::blocks::to_q8_0;
use super::describe::describe;
use super::layout::{Layout, to_neighbours};
use super::names::modules;
use super::tensor_type::{BF16, F16, F32, Q8_0, TensorType};
use super::tokenizer;
use super::writer::{self, Metadata, Planned};
use crate::data::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::model::storage::finite;
use crate::model::weights::Weight;
use crate::model::{FloatFormat, Model};

/// The number of elements that are converted at a time.
const PIECE: usize = 1 << 18;

/// The format of matrices in a GGUF file. Vectors are always f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GgufFormat {
    /// Single precision, the format of all computation.
    #[default]
    F32,
    /// Half precision.
    F16,
    /// Brain floats.
    Bf16,
    /// Blocks of 32 integers of 8 bits with a scale.
    Q8_0,
}

impl GgufFormat {
    /// The number in `general.file_type`.
    pub(super) fn file_type(self) -> u32 {
        match self {
            GgufFormat::F32 => 0,
            GgufFormat::F16 => 1,
            GgufFormat::Q8_0 => 7,
            GgufFormat::Bf16 => 32,
        }
    }

    /// The type of a matrix with rows of this length.
    fn of_matrix(self, cols: usize) -> &'static TensorType {
        match self {
            GgufFormat::F32 => &F32,
            GgufFormat::F16 => &F16,
            GgufFormat::Bf16 => &BF16,
            GgufFormat::Q8_0 if cols.is_multiple_of(Q8_0.block) => &Q8_0,
            GgufFormat::Q8_0 => &F16,
        }
    }
}

impl Model {
    /// Writes the base weights to one GGUF file, with the tokenizer and chat template of the model at `source`. Returns
    /// warnings about differences in llama.cpp. If a write fails, no new file is left.
    ///
    /// # Errors
    /// [`Error::Config`] for a model that llama.cpp would compute differently, and for a number outside the range of
    /// `format`; [`Error::File`] for a tokenizer that llama.cpp does not support; [`Error::SelfCheck`] for a number
    /// that is not finite.
    pub async fn save_gguf(&self, path: &Path, source: &Path, format: GgufFormat) -> Result<Vec<String>> {
        let mut metadata = Metadata::default();
        let described = describe(&mut metadata, self.config(), self.architecture(), format)?;
        let (tokenizer, mut warnings) =
            tokenizer::write::write(&mut metadata, source, self.architecture().vocab)?;
        let name = source.file_stem().unwrap_or_default().to_string_lossy();
        if !fails_by_name(&name, &tokenizer) {
            metadata.text("general.name", &name);
        }

        let architecture = self.architecture();
        let layouts: HashMap<String, (String, Layout)> = modules(architecture)
            .into_iter()
            .map(|module| {
                let layout = Layout::of(&module, described.gguf, architecture);
                (module.ours, (module.gguf, layout))
            })
            .collect();
        let (mut planned, mut sources) = (Vec::new(), Vec::new());
        let mut plan = |name: String, shape: Vec<usize>| {
            let kind = match &shape[..] {
                [_, cols] if name != "position_embd.weight" => format.of_matrix(*cols),
                _ => &F32,
            };
            planned.push(Planned { name, shape, kind });
        };
        for weight in self.base().iter() {
            let (stem, end) = weight.name.rsplit_once('.').expect("a module and a part of it");
            let (gguf, layout) = &layouts[stem];
            plan(format!("{gguf}.{end}"), weight.shape.clone());
            sources.push(Source::Weight(weight, *layout));
            if gguf == "token_embd" && described.repeats_embedding {
                plan("output.weight".into(), weight.shape.clone());
                sources.push(Source::Weight(weight, Layout::Same));
            }
        }
        for (name, values) in described.factors {
            plan(name.to_owned(), vec![values.len()]);
            sources.push(Source::Factors(values));
        }
        let mut file = writer::create(path, &metadata, &planned)?;
        for (tensor, source) in planned.iter().zip(sources) {
            let values = match source {
                Source::Factors(values) => values,
                Source::Weight(weight, layout) => {
                    in_layout(finite(self.base(), weight).await?, layout, &tensor.shape)
                }
            };
            let piece = PIECE.next_multiple_of(tensor.kind.block);
            writer::push(&mut file, tensor, values.chunks(piece).map(|values| encoded(tensor, values)))?;
        }
        file.commit()?;
        warnings.extend(described.warnings);
        Ok(warnings)
    }
}

/// Whether llama.cpp would fail because of the name: it treats a model with such a name as a Phi-3 and requires its
/// tokens.
fn fails_by_name(name: &str, tokenizer: &Tokenizer) -> bool {
    let name = name.to_lowercase();
    let has = |token: &&str| tokenizer.token_to_id(token).is_some();
    (name.contains("phi-3") || name.contains("phi3"))
        && !["</s>", "<unk>", "<s>", "<|endoftext|>"].iter().all(has)
}

/// The source of a tensor's numbers.
enum Source<'a> {
    Weight(&'a Weight, Layout),
    Factors(Vec<f32>),
}

/// Converts numbers that the model uses to the layout of GGUF.
fn in_layout(values: Vec<f32>, layout: Layout, shape: &[usize]) -> Vec<f32> {
    match layout {
        Layout::Same => values,
        Layout::OneMore => values.into_iter().map(|v| v + 1.0).collect(),
        Layout::Neighbours(heads) => to_neighbours(&values, shape[0] / heads, shape[1..].iter().product()),
    }
}

fn encoded(tensor: &Planned, values: &[f32]) -> Result<Vec<u8>> {
    let float = match tensor.kind.name {
        "f32" => FloatFormat::F32,
        "f16" => FloatFormat::F16,
        "bf16" => FloatFormat::Bf16,
        _ => {
            return to_q8_0(values).map_err(|v| {
                let why =
                    format!("{} holds {v:e}, outside the range of q8_0 (±8e6): use float32", tensor.name);
                Error::config("dtype", why)
            });
        }
    };
    float.encode(&tensor.name, values)
}
