//! Weights on the adapter: frozen tensors each by themselves, trained ones in flat buffers beside their gradients.

use std::collections::HashMap;

use half::{bf16, f16};

use super::architecture::WeightSpec;
use super::storage::FloatFormat;
use crate::error::{Error, Result};
use crate::gpu::{Category, Format, Gpu, Recorder, Region, Tensor};
use crate::ops::Matrix;

/// One weight, in as many parts as the adapter's binding limit asks for.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Tensor name in the model's files.
    pub name: String,
    /// Shape in the model's files.
    pub shape: Vec<usize>,
    /// How its elements lie on the device.
    pub format: Format,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
struct Part {
    rows: usize,
    values: Region,
    gradient: Option<Region>,
}

impl Weight {
    fn cols(&self) -> usize {
        *self.shape.last().expect("a weight has a shape")
    }

    /// The regions of the parts: values, gradient, rows, cols. A vector is one row.
    pub fn parts(&self) -> impl Iterator<Item = (&Region, Option<&Region>, usize, usize)> {
        self.parts.iter().map(|p| (&p.values, p.gradient.as_ref(), p.rows, self.cols()))
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A stretch of trained weights that the optimiser updates in one launch.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The weights.
    pub values: Region,
    /// Their gradients, laid out alike.
    pub gradients: Region,
    /// Elements, with the gaps between tensors.
    pub elements: usize,
    /// Whether weight decay applies: to matrices, not to norms.
    pub decayed: bool,
}

/// A set of weights.
pub struct Weights {
    gpu: Gpu,
    list: Vec<Weight>,
    index: HashMap<String, usize>,
    /// The flat buffers of trained weights; empty for frozen ones.
    pub segments: Vec<Segment>,
}

/// A vector is a matrix of one row.
fn rows_and_cols(shape: &[usize]) -> (usize, usize) {
    match shape {
        [rows, cols] => (*rows, *cols),
        _ => (1, shape.iter().product()),
    }
}

/// Splits (rows, cols) so that every part fits one binding, as f32 whatever its format: rows of each part.
fn split_rows(gpu: &Gpu, rows: usize, cols: usize) -> Vec<usize> {
    let fit = (gpu.limits().binding.min(gpu.limits().buffer) / (cols as u64 * 4)).max(1) as usize;
    (0..rows).step_by(fit).map(|first| fit.min(rows - first)).collect()
}

/// How a frozen weight lies on the device: vectors, which are few, are f32 always; so are matrices whose rows are not
/// whole vectors of four, which the kernels read.
fn frozen_format(spec: &WeightSpec, wanted: FloatFormat) -> Format {
    match (spec.shape.as_slice(), wanted) {
        ([_, cols], FloatFormat::F16) if cols.is_multiple_of(4) => Format::F16,
        ([_, cols], FloatFormat::Bf16) if cols.is_multiple_of(4) => Format::Bf16,
        _ => Format::F32,
    }
}

impl Weights {
    /// Weights that are only read; `wanted` is how matrices are held where their shape allows it.
    pub fn frozen(gpu: &Gpu, specs: &[WeightSpec], wanted: FloatFormat) -> Result<Weights> {
        let mut list = Vec::new();
        for spec in specs {
            let (rows, cols) = rows_and_cols(&spec.shape);
            let format = frozen_format(spec, wanted);
            let part = |rows: usize| {
                let bytes = format.bytes((rows * cols) as u64);
                let values = gpu.buffer(&spec.name, Category::Weights, bytes)?.region();
                Ok(Part { rows, values, gradient: None })
            };
            let parts = split_rows(gpu, rows, cols).into_iter().map(part).collect::<Result<_>>()?;
            list.push(Weight { name: spec.name.clone(), shape: spec.shape.clone(), format, parts });
        }
        Ok(Weights::new(gpu, list, Vec::new()))
    }

    /// Weights that are trained: values and gradients in flat buffers, matrices apart from vectors.
    pub fn trained(gpu: &Gpu, specs: &[WeightSpec]) -> Result<Weights> {
        let align = gpu.limits().alignment.max(16) as usize / 4;
        let mut list: Vec<Weight> = Vec::new();
        let mut segments = Vec::new();
        for decayed in [true, false] {
            let mut flat =
                FlatLayout::new((gpu.limits().binding.min(gpu.limits().buffer) / 4) as usize, align);
            for spec in specs.iter().filter(|s| (s.shape.len() == 2) == decayed) {
                let (rows, cols) = rows_and_cols(&spec.shape);
                let places =
                    split_rows(gpu, rows, cols).into_iter().map(|r| (r, flat.place(r * cols))).collect();
                flat.weights.push((spec.clone(), places));
            }
            let first = segments.len();
            for (i, elements) in flat.segments.iter().enumerate() {
                let bytes = (*elements * 4) as u64;
                let label = |what: &str| format!("trained {what} {}", first + i);
                let values = gpu.buffer(label("weights"), Category::Weights, bytes)?.region();
                let gradients = gpu.buffer(label("gradients"), Category::Gradients, bytes)?.region();
                segments.push(Segment { values, gradients, elements: *elements, decayed });
            }
            for (spec, places) in flat.weights {
                let cols = rows_and_cols(&spec.shape).1;
                let part = |(rows, (segment, at)): (usize, (usize, usize))| {
                    let segment: &Segment = &segments[first + segment];
                    let (offset, bytes) = ((at * 4) as u64, (rows * cols * 4) as u64);
                    let slice = |of: &Region| Region { buffer: of.buffer.clone(), offset, bytes };
                    Part { rows, values: slice(&segment.values), gradient: Some(slice(&segment.gradients)) }
                };
                let parts = places.into_iter().map(part).collect();
                list.push(Weight { name: spec.name, shape: spec.shape, format: Format::F32, parts });
            }
        }
        let order: HashMap<&str, usize> =
            specs.iter().enumerate().map(|(i, s)| (s.name.as_str(), i)).collect();
        list.sort_by_key(|w| order[w.name.as_str()]);
        Ok(Weights::new(gpu, list, segments))
    }

    fn new(gpu: &Gpu, list: Vec<Weight>, segments: Vec<Segment>) -> Weights {
        let index = list.iter().enumerate().map(|(i, w)| (w.name.clone(), i)).collect();
        Weights { gpu: gpu.clone(), list, index, segments }
    }

    /// A frozen copy of the values as they are now, rounded to `wanted`.
    pub fn frozen_copy(&self, wanted: FloatFormat) -> Result<Weights> {
        let specs = self.list.iter().map(|w| WeightSpec { name: w.name.clone(), shape: w.shape.clone() });
        let copy = Weights::frozen(&self.gpu, &specs.collect::<Vec<_>>(), wanted)?;
        for (from, to) in self.list.iter().zip(&copy.list) {
            let mut first = 0;
            for (part, copied) in from.parts.iter().zip(&to.parts) {
                match from.format == to.format {
                    true => self.gpu.copy(&part.values, &copied.values)?,
                    false => copy.upload_rows(&to.name, first, &self.download_part(from, part)?)?,
                }
                first += part.rows;
            }
        }
        Ok(copy)
    }

    /// All weights, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Weight> {
        self.list.iter()
    }

    /// A weight by its tensor name.
    pub fn get(&self, name: &str) -> Option<&Weight> {
        self.index.get(name).map(|i| &self.list[*i])
    }

    /// The weight `name` in a recording, with its gradient when it is trained and the recording trains.
    pub fn bind(&self, r: &mut Recorder, name: &str) -> Matrix {
        let weight =
            self.get(name).unwrap_or_else(|| panic!("the architecture asks for an unknown weight {name}"));
        let part = |(values, gradient, rows, cols): (&Region, Option<&Region>, usize, usize)| -> Tensor {
            let tensor = r.bind(values, rows, cols, weight.format);
            if let Some(gradient) = gradient {
                r.train(tensor, gradient);
            }
            tensor
        };
        Matrix::new(weight.parts().map(part).collect())
    }

    /// Overwrites a weight.
    ///
    /// # Errors
    /// [`Error::Config`] for a number that its 16-bit format has no room for.
    pub fn upload(&self, name: &str, values: &[f32]) -> Result<()> {
        self.upload_rows(name, 0, values)
    }

    /// Overwrites rows of a weight from row `first` on.
    pub fn upload_rows(&self, name: &str, first: usize, values: &[f32]) -> Result<()> {
        let weight = self.get(name).unwrap_or_else(|| panic!("unknown weight {name}"));
        if self.gpu.is_measuring() {
            return Ok(());
        }
        let (cols, last) = (weight.cols(), first + values.len() / weight.cols());
        let bytes = |rows: usize| weight.format.bytes((rows * cols) as u64);
        let mut at = 0;
        for part in &weight.parts {
            let (from, to) = (first.max(at), last.min(at + part.rows));
            if from < to {
                let offset = part.values.offset + bytes(from - at);
                let region = Region { buffer: part.values.buffer.clone(), offset, bytes: bytes(to - from) };
                let values = &values[(from - first) * cols..(to - first) * cols];
                match weight.format {
                    Format::F16 => self.gpu.upload(&region, &to_f16(name, values)?)?,
                    Format::Bf16 => {
                        let rounded: Vec<bf16> = values.iter().map(|v| bf16::from_f32(*v)).collect();
                        self.gpu.upload(&region, &rounded)?;
                    }
                    _ => self.gpu.upload(&region, values)?,
                }
            }
            at += part.rows;
        }
        assert!(last <= at, "{name} has {at} rows, not {last}");
        Ok(())
    }

    /// Reads a weight back.
    pub fn download(&self, weight: &Weight) -> Result<Vec<f32>> {
        let mut out = Vec::with_capacity(weight.elements());
        for part in &weight.parts {
            out.extend(self.download_part(weight, part)?);
        }
        Ok(out)
    }

    fn download_part(&self, weight: &Weight, part: &Part) -> Result<Vec<f32>> {
        Ok(match weight.format {
            Format::F16 => self.gpu.download::<f16>(&part.values)?.iter().map(|v| v.to_f32()).collect(),
            Format::Bf16 => self.gpu.download::<bf16>(&part.values)?.iter().map(|v| v.to_f32()).collect(),
            _ => self.gpu.download(&part.values)?,
        })
    }

    /// Reads a weight's gradient back; empty for a frozen weight.
    pub fn download_gradient(&self, weight: &Weight) -> Result<Vec<f32>> {
        let mut out = Vec::new();
        for part in weight.parts.iter().filter_map(|p| p.gradient.as_ref()) {
            out.extend(self.gpu.download::<f32>(part)?);
        }
        Ok(out)
    }

    /// Sets every gradient to zero.
    pub fn clear_gradients(&self) -> Result<()> {
        self.gpu.clear(&self.segments.iter().map(|s| s.gradients.clone()).collect::<Vec<_>>())
    }
}

/// Rounds to half precision, where that is no overflow.
fn to_f16(name: &str, values: &[f32]) -> Result<Vec<f16>> {
    let rounded = |v: &f32| {
        let half = f16::from_f32(*v);
        match half.is_infinite() && v.is_finite() {
            false => Ok(half),
            true => {
                let why = format!("float16 ends at 65504, and {name} holds {v}: take bfloat16 or float32");
                Err(Error::config("--dtype", why))
            }
        }
    };
    values.iter().map(rounded).collect()
}

/// Rows of a part, and the segment and offset where it lies.
type Place = (usize, (usize, usize));

/// Places tensors in flat segments that each fit one binding.
struct FlatLayout {
    limit: usize,
    align: usize,
    segments: Vec<usize>,
    weights: Vec<(WeightSpec, Vec<Place>)>,
}

impl FlatLayout {
    fn new(limit: usize, align: usize) -> FlatLayout {
        FlatLayout { limit, align, segments: Vec::new(), weights: Vec::new() }
    }

    /// The segment and offset of `elements` more.
    fn place(&mut self, elements: usize) -> (usize, usize) {
        let padded = elements.next_multiple_of(self.align);
        if self.segments.last().is_none_or(|used| used + padded > self.limit) {
            self.segments.push(0);
        }
        let segment = self.segments.len() - 1;
        let at = self.segments[segment];
        self.segments[segment] += padded;
        (segment, at)
    }
}
