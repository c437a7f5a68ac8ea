//! Weights on the GPU: frozen tensors have their own buffers, trained ones share flat buffers that correspond to their
//! gradients' buffers. Matrices that read the same rows are stacked in one region, so that one product computes all of
//! them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use half::{bf16, f16};

use super::architecture::WeightSpec;
use super::format::{FrozenFormat, to_bf16, to_blocks, to_f16};
use crate::error::{Error, Remedy, Result};
use crate::gpu::{Category, Format, Gpu, Recorder, Region, Tensor, blocks};
use crate::ops::Matrix;

/// One weight, split into as many parts as the GPU's binding limit requires.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Tensor name in the model's files.
    pub name: String,
    /// Its shape in use. A matrix that files store transposed has the reverse shape there.
    pub shape: Vec<usize>,
    /// The format of its elements on the device.
    pub format: Format,
    spec: WeightSpec,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
struct Part {
    rows: usize,
    values: Region,
    gradient: Option<Region>,
    /// The bound region: the whole stack, in which this part starts at row `first_row`.
    stack: Stack,
    first_row: usize,
}

/// Weights that share one binding, stacked row after row.
#[derive(Clone, Debug)]
struct Stack {
    values: Region,
    gradient: Option<Region>,
    rows: usize,
}

impl Weight {
    /// The number of columns on the device. A vector counts as a matrix of one column, so that vectors can be stacked.
    fn cols(&self) -> usize {
        rows_and_cols(&self.shape).1
    }

    /// How the model's files store it.
    pub(super) fn spec(&self) -> &WeightSpec {
        &self.spec
    }

    /// The regions of the parts: values, gradient, rows, cols. A vector is one row.
    pub fn parts(&self) -> impl Iterator<Item = (&Region, Option<&Region>, usize, usize)> {
        let extents = |p: &Part| match self.shape.len() {
            1 => (1, p.rows),
            _ => (p.rows, self.cols()),
        };
        self.parts.iter().map(move |p| {
            let (rows, cols) = extents(p);
            (&p.values, p.gradient.as_ref(), rows, cols)
        })
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A range of trained weights that the optimiser updates in one launch.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The weights.
    pub values: Region,
    /// Their gradients, in the same layout.
    pub gradients: Region,
    /// The number of elements, including the gaps between tensors.
    pub elements: usize,
    /// Whether weight decay applies: it does to matrices, but not to vectors such as norm weights and biases.
    pub decayed: bool,
}

/// A set of weights.
pub struct Weights {
    gpu: Gpu,
    list: Vec<Weight>,
    index: HashMap<String, usize>,
    /// The flat buffers of trained weights; empty for frozen ones.
    pub(crate) segments: Vec<Segment>,
    changes: AtomicU64,
}

/// The extents of a weight. A vector is a matrix of one column, so that vectors can be stacked as well.
fn rows_and_cols(shape: &[usize]) -> (usize, usize) {
    match shape {
        [rows, cols] => (*rows, *cols),
        _ => (shape.iter().product(), 1),
    }
}

/// Rows of a member of a stack: the member's index, and the row of the stack at which they begin.
struct Placed {
    member: usize,
    first_row: usize,
    rows: usize,
}

/// Splits the weights into runs that are stacked on each other.
fn runs(specs: &[WeightSpec]) -> impl Iterator<Item = &[WeightSpec]> {
    specs.chunk_by(|_, next| next.stacked)
}

/// Divides a run into stacks of at most `limit` elements, in which each member begins at a multiple of `align` elements
/// and of a row. All members share one stack if they fit. Otherwise two members of the same size are split at the same
/// rows, and any others are split separately.
fn stacks(run: &[WeightSpec], limit: usize, align: usize) -> Vec<Vec<Placed>> {
    let cols = rows_and_cols(&run[0].shape).1;
    let rows: Vec<usize> = run.iter().map(|s| rows_and_cols(&s.shape).0).collect();
    // A member may begin at multiples of this many rows. Vectors have no gaps between them, since they are bound as
    // one, so a single vector cannot always be bound by itself.
    let step = if run[0].shape.len() == 1 { 1 } else { align / gcd(align, cols) };
    let stack = |members: &[(usize, usize)]| {
        let mut next = 0;
        let place = |(member, rows): &(usize, usize)| {
            let first_row = next;
            next += rows.next_multiple_of(step);
            Placed { member: *member, first_row, rows: *rows }
        };
        members.iter().map(place).collect::<Vec<_>>()
    };
    let fit = (limit / cols).max(1);
    let together: Vec<(usize, usize)> = rows.iter().copied().enumerate().collect();
    let whole = stack(&together);
    if elements(&whole, cols) <= limit {
        return vec![whole];
    }
    let pieces = |rows: usize, fit: usize| (0..rows).step_by(fit).map(move |at| fit.min(rows - at));
    if let [upper, lower] = rows[..]
        && upper == lower
    {
        let half = (fit / 2 / step * step).max(1);
        return pieces(upper, half).map(|n| stack(&[(0, n), (1, n)])).collect();
    }
    let alone = |(member, rows): (usize, usize)| {
        let unit = run[member].unit;
        pieces(rows, (fit / unit * unit).max(unit)).map(|n| stack(&[(member, n)])).collect::<Vec<_>>()
    };
    together.into_iter().flat_map(alone).collect()
}

/// Returns an error for vectors that do not fit one binding.
fn check_vectors(run: &[WeightSpec], stacks: &[Vec<Placed>], limit: usize) -> Result<()> {
    if run[0].shape.len() != 1 || stacks.len() == 1 {
        return Ok(());
    }
    let elements: usize = run.iter().map(|spec| spec.shape[0]).sum();
    Err(Error::Limit {
        what: run[0].name.clone(),
        needed: elements as u64 * 4,
        limit: limit as u64 * 4,
        remedy: Remedy::SmallerModel,
    })
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The number of elements of a stack, including the gaps between its members.
fn elements(stack: &[Placed], cols: usize) -> usize {
    stack.last().map_or(0, |p| (p.first_row + p.rows) * cols)
}

/// Returns the number of elements that fit one binding, and the alignment of a binding's start in elements. Both count
/// 32 bits per element whatever the format, so that a copy in another format has the same layout.
fn binding(gpu: &Gpu) -> (usize, usize) {
    let limits = gpu.limits();
    ((limits.binding.min(limits.buffer) / 4) as usize, limits.alignment.max(16) as usize / 4)
}

/// Builds the weights of a run whose stacks are in these regions of values and gradients.
fn weights_of(
    run: &[WeightSpec],
    format: Format,
    stacks: Vec<(Vec<Placed>, Region, Option<Region>)>,
) -> Vec<Weight> {
    let new = |spec: &WeightSpec| Weight {
        name: spec.name.clone(),
        shape: spec.shape.clone(),
        format,
        spec: spec.clone(),
        parts: Vec::new(),
    };
    let mut list: Vec<Weight> = run.iter().map(new).collect();
    let cols = list[0].cols();
    for (placed, values, gradient) in stacks {
        let stack = Stack { values, gradient, rows: elements(&placed, cols) / cols };
        for p in placed {
            let [offset, bytes] = [p.first_row, p.rows].map(|rows| format.bytes((rows * cols) as u64));
            let slice = |of: &Region| Region { buffer: of.buffer.clone(), offset: of.offset + offset, bytes };
            list[p.member].parts.push(Part {
                rows: p.rows,
                values: slice(&stack.values),
                gradient: stack.gradient.as_ref().map(slice),
                stack: stack.clone(),
                first_row: p.first_row,
            });
        }
    }
    list
}

impl Weights {
    /// Allocates frozen weights. `wanted` is the format of matrices whose shape allows it.
    pub fn frozen(gpu: &Gpu, specs: &[WeightSpec], wanted: FrozenFormat) -> Result<Weights> {
        specs.iter().try_for_each(WeightSpec::check)?;
        let (limit, align) = binding(gpu);
        let mut list = Vec::new();
        for run in runs(specs) {
            let cols = rows_and_cols(&run[0].shape).1;
            let label = run.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(" and ");
            let format = wanted.on_device(&run[0]);
            let stacks = stacks(run, limit, align);
            check_vectors(run, &stacks, limit)?;
            let place = |stack: Vec<Placed>| {
                let bytes = format.bytes(elements(&stack, cols) as u64);
                Ok((stack, gpu.buffer(&label, Category::Weights, bytes)?.region(), None))
            };
            let placed = stacks.into_iter().map(place).collect::<Result<_>>()?;
            list.extend(weights_of(run, format, placed));
        }
        Ok(Weights::new(gpu, list, Vec::new()))
    }

    /// Allocates trained weights: values and gradients in flat buffers, matrices separate from vectors.
    pub fn trained(gpu: &Gpu, specs: &[WeightSpec]) -> Result<Weights> {
        specs.iter().try_for_each(WeightSpec::check)?;
        let (limit, align) = binding(gpu);
        let mut list: Vec<Weight> = Vec::new();
        let mut segments = Vec::new();
        for decayed in [true, false] {
            let of_kind: Vec<WeightSpec> =
                specs.iter().filter(|s| (s.shape.len() == 2) == decayed).cloned().collect();
            let mut flat = FlatLayout { limit, align, segments: Vec::new() };
            let mut placed = Vec::new();
            for run in runs(&of_kind) {
                let cols = rows_and_cols(&run[0].shape).1;
                let stacks = stacks(run, limit, align);
                check_vectors(run, &stacks, limit)?;
                let place = |stack: Vec<Placed>| (flat.place(elements(&stack, cols)), stack);
                placed.push((run, stacks.into_iter().map(place).collect::<Vec<_>>()));
            }
            let first = segments.len();
            for (i, elements) in flat.segments.iter().enumerate() {
                let bytes = (*elements * 4) as u64;
                let label = |what: &str| format!("trained {what} {}", first + i);
                let values = gpu.buffer(label("weights"), Category::Weights, bytes)?.region();
                let gradients = gpu.buffer(label("gradients"), Category::Gradients, bytes)?.region();
                segments.push(Segment { values, gradients, elements: *elements, decayed });
            }
            for (run, stacks) in placed {
                let cols = rows_and_cols(&run[0].shape).1;
                let region = |((segment, at), stack): ((usize, usize), Vec<Placed>)| {
                    let segment: &Segment = &segments[first + segment];
                    let (offset, bytes) = ((at * 4) as u64, (elements(&stack, cols) * 4) as u64);
                    let slice = |of: &Region| Region { buffer: of.buffer.clone(), offset, bytes };
                    (stack, slice(&segment.values), Some(slice(&segment.gradients)))
                };
                list.extend(weights_of(run, Format::F32, stacks.into_iter().map(region).collect()));
            }
        }
        let order: HashMap<&str, usize> =
            specs.iter().enumerate().map(|(i, s)| (s.name.as_str(), i)).collect();
        list.sort_by_key(|w| order[w.name.as_str()]);
        Ok(Weights::new(gpu, list, segments))
    }

    fn new(gpu: &Gpu, list: Vec<Weight>, segments: Vec<Segment>) -> Weights {
        let index = list.iter().enumerate().map(|(i, w)| (w.name.clone(), i)).collect();
        Weights { gpu: gpu.clone(), list, index, segments, changes: AtomicU64::new(0) }
    }

    /// Returns a frozen copy of the current values, rounded to `wanted`.
    pub async fn frozen_copy(&self, wanted: FrozenFormat) -> Result<Weights> {
        let specs: Vec<WeightSpec> = self.list.iter().map(|w| w.spec.clone()).collect();
        let copy = Weights::frozen(&self.gpu, &specs, wanted)?;
        for (from, to) in self.list.iter().zip(&copy.list) {
            let mut first = 0;
            for (part, copied) in from.parts.iter().zip(&to.parts) {
                match from.format == to.format {
                    true => self.gpu.copy(&part.values, &copied.values)?,
                    false => copy.upload_rows(&to.name, first, &self.download_part(from, part).await?)?,
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

    /// The regions of values, one per stack. A copy in the same format has the same regions.
    pub(crate) fn stacks(&self) -> impl Iterator<Item = &Region> {
        let parts = self.list.iter().flat_map(|weight| &weight.parts);
        parts.filter(|part| part.first_row == 0).map(|part| &part.stack.values)
    }

    /// Returns a weight by its tensor name.
    pub fn get(&self, name: &str) -> Option<&Weight> {
        self.index.get(name).map(|i| &self.list[*i])
    }

    /// The name of the weight before this one.
    pub(super) fn before(&self, name: &str) -> Option<&str> {
        let at = self.index.get(name)?.checked_sub(1)?;
        Some(&self.list[at].name)
    }

    /// The GPU that holds the weights.
    pub(crate) fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Binds the matrix `name` in a recording, with its gradient if it is trained and the recording trains.
    pub(crate) fn bind(&self, r: &mut Recorder, name: &str) -> Matrix {
        self.bind_stacked(r, &[name])
    }

    /// Binds stacked vectors as one, (1, all elements), with its gradient if they are trained and the recording trains.
    pub(crate) fn bind_vectors<S: AsRef<str>>(&self, r: &mut Recorder, names: &[S]) -> Tensor {
        let known = |name: &S| {
            let name = name.as_ref();
            self.get(name).unwrap_or_else(|| panic!("the architecture asks for an unknown weight {name}"))
        };
        let weights: Vec<&Weight> = names.iter().map(known).collect();
        let [part] = &weights[0].parts[..] else { panic!("{}: a vector is in one part", weights[0].name) };
        let elements: usize = weights.iter().map(|weight| weight.elements()).sum();
        assert_eq!(part.stack.rows, elements, "{}: stacked otherwise", weights[0].name);
        let vector = r.bind(&part.stack.values, 1, elements, Format::F32);
        if let Some(gradient) = &part.stack.gradient {
            r.train(vector, gradient);
        }
        vector
    }

    /// Binds matrices with rows of the same length as one matrix, stacked row after row.
    pub(crate) fn bind_stacked<S: AsRef<str>>(&self, r: &mut Recorder, names: &[S]) -> Matrix {
        let mut pieces = Vec::new();
        for name in names.iter().map(AsRef::as_ref) {
            let weight = self
                .get(name)
                .unwrap_or_else(|| panic!("the architecture asks for an unknown weight {name}"));
            for part in &weight.parts {
                let stack = r.bind(&part.stack.values, part.stack.rows, weight.cols(), weight.format);
                if let Some(gradient) = &part.stack.gradient {
                    r.train(stack, gradient);
                }
                pieces.push((stack, part.first_row, part.rows));
            }
        }
        Matrix::of_pieces(pieces)
    }

    /// Records that results computed with these weights are no longer valid: they were written, or a plan that writes
    /// them was submitted.
    pub(crate) fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of changes so far.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Overwrites a weight.
    ///
    /// # Errors
    /// [`Error::Config`] for a number outside the range of the weight's format, and for the wrong number of values.
    pub fn upload(&self, name: &str, values: &[f32]) -> Result<()> {
        let elements = self.known(name)?.elements();
        if values.len() != elements {
            return Err(Error::config(name, format!("has {elements} elements, not {}", values.len())));
        }
        self.upload_rows(name, 0, values)
    }

    fn known(&self, name: &str) -> Result<&Weight> {
        self.get(name).ok_or_else(|| Error::config(name, "is not a weight of this model"))
    }

    /// Overwrites rows of a weight, starting at row `first`.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown weight, incomplete rows, and rows after its last.
    pub fn upload_rows(&self, name: &str, first: usize, values: &[f32]) -> Result<()> {
        let weight = self.known(name)?;
        self.note_change();
        let (rows, cols) = rows_and_cols(&weight.shape);
        let fits = match weight.shape.len() {
            1 => values.is_empty() || first == 0 && values.len() == rows,
            _ => values.len().is_multiple_of(cols) && values.len() / cols <= rows.saturating_sub(first),
        };
        if !fits {
            let why = format!("has {rows} rows of {cols}, not {} elements from row {first} on", values.len());
            return Err(Error::config(name, why));
        }
        let last = first + values.len() / cols;
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
                    Format::Bf16 => self.gpu.upload(&region, &to_bf16(name, values)?)?,
                    Format::F32 => self.gpu.upload(&region, values)?,
                    Format::Q8 | Format::Q4 => {
                        self.gpu.upload(&region, &to_blocks(name, weight.format, values)?)?;
                    }
                    Format::U32 => unreachable!("weights are floats"),
                }
            }
            at += part.rows;
        }
        Ok(())
    }

    /// Reads a weight back.
    pub async fn download(&self, weight: &Weight) -> Result<Vec<f32>> {
        let mut out = Vec::with_capacity(weight.elements());
        for part in &weight.parts {
            out.extend(self.download_part(weight, part).await?);
        }
        Ok(out)
    }

    async fn download_part(&self, weight: &Weight, part: &Part) -> Result<Vec<f32>> {
        Ok(match weight.format {
            Format::F16 => self.gpu.download::<f16>(&part.values).await?.iter().map(|v| v.to_f32()).collect(),
            Format::Bf16 => {
                self.gpu.download::<bf16>(&part.values).await?.iter().map(|v| v.to_f32()).collect()
            }
            Format::F32 => self.gpu.download(&part.values).await?,
            Format::Q8 | Format::Q4 => blocks::decode(weight.format, &self.gpu.download(&part.values).await?),
            Format::U32 => unreachable!("weights are floats"),
        })
    }

    /// Reads a weight's gradient back; empty for a frozen weight.
    pub async fn download_gradient(&self, weight: &Weight) -> Result<Vec<f32>> {
        let mut out = Vec::new();
        for part in weight.parts.iter().filter_map(|p| p.gradient.as_ref()) {
            out.extend(self.gpu.download::<f32>(part).await?);
        }
        Ok(out)
    }

    /// [`Weights::download_gradient`] in the layout of the weight's files; for a trained weight.
    pub async fn gradient_as_stored(&self, weight: &Weight) -> Result<Vec<f32>> {
        Ok(weight.spec.to_stored(self.download_gradient(weight).await?))
    }

    /// Sets every gradient to zero.
    pub fn clear_gradients(&self) -> Result<()> {
        self.gpu.clear(&self.segments.iter().map(|s| s.gradients.clone()).collect::<Vec<_>>())
    }
}

/// Places tensors in flat segments that each fit one binding.
struct FlatLayout {
    limit: usize,
    align: usize,
    segments: Vec<usize>,
}

impl FlatLayout {
    /// Returns the segment and offset for `elements` more.
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
