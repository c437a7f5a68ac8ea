//! The table of cases for every kernel, used by tests, benchmarks and `oaif doctor`.

mod activation;
mod add;
mod advance;
mod attention;
mod ceiling;
mod feed_forward;
mod gather;
mod linear;
mod logprob;
mod mix;
mod norm;
mod optim;
mod policy_gradient;
mod preference;
mod rotary;
mod sampling;
mod segment;
mod self_attention;
mod table;

use half::{bf16, f16};
pub(crate) use table::for_first_start;
pub use table::{all_cases, largest_shapes, real_shapes};

use crate::error::Result;
use crate::gpu::blocks;
use crate::gpu::{Arena, Category, Dim, Format, Gpu, Live, Plan, PlanOptions, Recorder, Tensor};
use crate::reference::uniform;

/// The maximum of a live extent exceeds the case's rows by this many: memory that no kernel may access.
const SLACK: usize = 3;

#[derive(Clone)]
enum Data {
    F32(Vec<f32>),
    U32(Vec<u32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
    Blocks(Format, Vec<u32>),
}

/// Packs 16-bit elements into words, the last one padded with NaN.
fn packed(bits: impl Iterator<Item = u16>) -> Vec<u32> {
    let bits: Vec<u16> = bits.collect();
    bits.chunks(2).map(|pair| pair[0] as u32 | (pair.get(1).map_or(0xffff, |b| *b as u32) << 16)).collect()
}

/// An input of a case.
#[derive(Clone)]
pub struct Input {
    data: Data,
    rows: usize,
    cols: usize,
    live: Option<u8>,
    gradient: bool,
}

impl Input {
    /// Normal numbers with standard deviation `scale`, (rows, cols); deterministic in `seed`.
    pub fn normal(seed: u32, rows: usize, cols: usize, scale: f32) -> Input {
        let draw = |i: usize| {
            let [u, v] = [0, 1].map(|j| uniform(seed, 7, j, i as u32));
            ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32 * scale
        };
        Input::f32((0..rows * cols).map(draw).collect(), rows, cols)
    }

    /// Elements of a matrix with standard deviation `scale`, (rows, cols), deterministic in `seed`: normal, or for
    /// large matrices uniform, since normal numbers would take seconds.
    pub fn weights(seed: u32, rows: usize, cols: usize, scale: f32) -> Input {
        if rows * cols <= 1 << 18 {
            return Input::normal(seed, rows, cols, scale);
        }
        let width = 3f32.sqrt() * scale;
        let draw = |i: usize| {
            let mixed = (((seed as u64) << 40) + i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let bits = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40;
            (bits as f32 / (1 << 23) as f32 - 1.0) * width
        };
        Input::f32((0..rows * cols).map(draw).collect(), rows, cols)
    }

    /// Given numbers, (rows, cols).
    pub fn f32(data: Vec<f32>, rows: usize, cols: usize) -> Input {
        assert_eq!(data.len(), rows * cols, "a case's input");
        Input { data: Data::F32(data), rows, cols, live: None, gradient: false }
    }

    /// Given integers, (rows, cols).
    pub fn u32(data: Vec<u32>, rows: usize, cols: usize) -> Input {
        assert_eq!(data.len(), rows * cols, "a case's input");
        Input { data: Data::U32(data), rows, cols, live: None, gradient: false }
    }

    /// The numbers of this input as a weight in this format; with fewer than 32 bits it is frozen and has no gradient.
    pub fn stored(self, format: Format) -> Input {
        let Data::F32(values) = &self.data else { panic!("only floats are rounded") };
        let data = match format {
            Format::F16 => Data::F16(values.iter().map(|v| f16::from_f32(*v)).collect()),
            Format::Bf16 => Data::Bf16(values.iter().map(|v| bf16::from_f32(*v)).collect()),
            Format::Q8 | Format::Q4 => {
                assert!(self.cols.is_multiple_of(format.row_unit()), "rows are whole groups of blocks");
                Data::Blocks(format, blocks::encode(format, values).expect("a case's input"))
            }
            Format::F32 | Format::U32 => return self,
        };
        Input { data, gradient: false, ..self }
    }

    /// Makes the rows a live extent with this index and a larger maximum; the memory beyond the rows holds NaN.
    pub fn live(mut self, index: u8) -> Input {
        self.live = Some(index);
        self
    }

    /// Requests a gradient for this input.
    pub fn watched(mut self) -> Input {
        self.gradient = true;
        self
    }

    fn values(&self) -> Vec<f64> {
        match &self.data {
            Data::F32(v) => v.iter().map(|x| *x as f64).collect(),
            Data::U32(v) => v.iter().map(|x| *x as f64).collect(),
            Data::F16(v) => v.iter().map(|x| x.to_f64()).collect(),
            Data::Bf16(v) => v.iter().map(|x| x.to_f64()).collect(),
            Data::Blocks(format, v) => blocks::decode(*format, v).iter().map(|x| *x as f64).collect(),
        }
    }

    fn bind(&self, gpu: &Gpu, recorder: &mut Recorder) -> Result<Tensor> {
        let slack = if self.live.is_some() { SLACK } else { 0 };
        let (mut words, format) = match &self.data {
            Data::F32(v) => (v.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), Format::F32),
            Data::U32(v) => (v.clone(), Format::U32),
            Data::F16(v) => (packed(v.iter().map(|x| x.to_bits())), Format::F16),
            Data::Bf16(v) => (packed(v.iter().map(|x| x.to_bits())), Format::Bf16),
            Data::Blocks(format, v) => (v.clone(), *format),
        };
        let bytes = format.bytes(((self.rows + slack) * self.cols) as u64);
        words.resize(bytes as usize / 4, f32::NAN.to_bits());
        let buffer = gpu.buffer_with("case input", Category::Workspace, &words)?;
        let rows = match self.live {
            Some(index) => Dim::Live { index, max: (self.rows + slack) as u32 },
            None => Dim::from(self.rows),
        };
        let tensor = recorder.bind(&buffer.region(), rows, self.cols, format);
        if self.gradient {
            recorder.watch(tensor);
        }
        Ok(tensor)
    }
}

/// Returns a range of the columns of x (N, cols).
fn columns(x: &[f64], cols: usize, range: std::ops::Range<usize>) -> Vec<f64> {
    x.chunks_exact(cols).flat_map(|row| &row[range.clone()]).copied().collect()
}

/// Places matrices with equal numbers of rows side by side; each is given with its number of columns.
fn beside(parts: &[(&[f64], usize)]) -> Vec<f64> {
    let rows = parts[0].0.len() / parts[0].1;
    let row =
        |n: usize| parts.iter().flat_map(move |(part, cols)| part[n * cols..(n + 1) * cols].iter().copied());
    (0..rows).flat_map(row).collect()
}

/// 2 x.
fn twice(x: &[f64]) -> Vec<f64> {
    x.iter().map(|x| 2.0 * x).collect()
}

/// Returns the gradients of those tensors that have one.
fn gradients(r: &Recorder, tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().filter_map(|t| r.gradient(*t)).collect()
}

type Record = Box<dyn Fn(&mut Recorder, &[Tensor]) -> Result<Vec<Tensor>> + Send + Sync>;
type Expected = Box<dyn Fn(&[Vec<f64>]) -> Vec<Vec<f64>> + Send + Sync>;

/// A kernel (or an op of several kernels) at one shape.
pub struct Case {
    /// The kernel's name; `_backward` in it selects the backward tolerance.
    pub kernel: &'static str,
    /// The shape in the crate's letters, for display.
    pub shape: String,
    /// The inputs.
    pub inputs: Vec<Input>,
    /// Records the launches and names the results.
    pub record: Record,
    /// The results by `reference`, from the inputs as numbers.
    pub expected: Expected,
    /// Scalars of the replay.
    pub scalars: [f32; 8],
    /// Largest accepted relative error in f32; in f16 see [`HALF`].
    pub tolerance: f64,
}

/// The largest accepted error of a forward kernel.
pub const FORWARD: f64 = 2e-5;
/// The largest accepted error of a backward kernel.
pub const BACKWARD: f64 = 1e-4;
/// The largest accepted error of a product by cooperative matrices of f16, which rounds the left elements by at most
/// u = 2⁻¹¹ relative, uniformly: u / √3 as root mean square. So an error is about 0.6 u of a result's root mean square,
/// and the largest of a million is 5 times that. The rest is a margin for drivers that truncate.
pub const HALF: f64 = 8.0 / 2048.0;
/// The largest accepted error of values computed from such products: a softmax turns the absolute error of a score,
/// which is larger than 1, into the relative error of a probability.
pub const THROUGH_HALF: f64 = 4.0 * HALF;

/// The error of a case compared with `reference`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct CaseReport {
    /// The kernel.
    pub kernel: &'static str,
    /// The shape.
    pub shape: String,
    /// Largest `|got - want| / (|want| + rms(want))` over all outputs.
    pub error: f64,
    /// The largest accepted error.
    pub tolerance: f64,
    /// The number of launches.
    pub launches: usize,
}

impl CaseReport {
    /// Whether the kernel agrees with `reference`; false for NaN.
    pub fn passed(&self) -> bool {
        self.error <= self.tolerance
    }
}

/// Returns the largest `|got - want| / (|want| + rms(want))`; infinite if a value is not a number.
pub fn relative_error(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len(), "results of different lengths");
    let rms = (want.iter().map(|w| w * w).sum::<f64>() / want.len().max(1) as f64).sqrt().max(1e-30);
    let each = got.iter().zip(want).map(|(g, w)| (g - w).abs() / (w.abs() + rms));
    each.fold(0.0, |worst: f64, e| if e.is_nan() { f64::INFINITY } else { worst.max(e) })
}

impl Case {
    /// A case with the tolerance that follows from its kernel's name.
    pub fn new(
        kernel: &'static str,
        shape: impl Into<String>,
        inputs: Vec<Input>,
        record: impl Fn(&mut Recorder, &[Tensor]) -> Result<Vec<Tensor>> + Send + Sync + 'static,
        expected: impl Fn(&[Vec<f64>]) -> Vec<Vec<f64>> + Send + Sync + 'static,
    ) -> Case {
        let tolerance = if kernel.contains("backward") { BACKWARD } else { FORWARD };
        let (record, expected) = (Box::new(record), Box::new(expected));
        Case { kernel, shape: shape.into(), inputs, record, expected, scalars: [0.0; 8], tolerance }
    }

    /// Sets another tolerance, for the few kernels that state a reason.
    pub fn within(mut self, tolerance: f64) -> Case {
        self.tolerance = tolerance;
        self
    }

    /// Sets the scalars of the replay.
    pub fn scalars(mut self, scalars: &[f32]) -> Case {
        self.scalars[..scalars.len()].copy_from_slice(scalars);
        self
    }

    /// Records the case; returns the recording with its results and live values.
    pub fn recording(&self, gpu: &Gpu) -> Result<(Recorder, Vec<Tensor>, Live)> {
        let mut recorder = Recorder::training(gpu);
        let inputs = self.inputs.iter().map(|i| i.bind(gpu, &mut recorder)).collect::<Result<Vec<_>>>()?;
        let results = (self.record)(&mut recorder, &inputs)?;
        results.iter().for_each(|t| recorder.output(*t));
        let mut live = Live { scalars: self.scalars, seed: 1, ..Live::default() };
        for input in &self.inputs {
            if let Some(index) = input.live {
                live.extents[index as usize] = input.rows as u32;
            }
        }
        Ok((recorder, results, live))
    }

    /// Builds a plan of the case; returns it with its results and live values.
    pub async fn plan(&self, gpu: &Gpu, options: PlanOptions) -> Result<(Plan, Vec<Tensor>, Live)> {
        let (recorder, results, live) = self.recording(gpu)?;
        Ok((Plan::new(gpu, recorder, &Arena::new(), options).await?, results, live))
    }

    /// Runs the case with every tensor fenced and initially NaN, and compares with `reference`.
    ///
    /// # Errors
    /// Errors of the engine, and [`crate::Error::SelfCheck`] for a write outside a tensor.
    pub async fn check(&self, gpu: &Gpu) -> Result<CaseReport> {
        let (recorder, results, live) = self.recording(gpu)?;
        let in_half = recorder.kernels().any(|kernel| kernel.is_on("COOPERATIVE"));
        let tolerance = match self.kernel {
            _ if !in_half => self.tolerance,
            "linear_forward" | "product" => HALF,
            _ => THROUGH_HALF,
        };
        let plan = Plan::new(gpu, recorder, &Arena::new(), PlanOptions { fenced: true }).await?;
        let outputs = plan.run(&live).await?;
        plan.check_fences().await?;
        let inputs: Vec<Vec<f64>> = self.inputs.iter().map(Input::values).collect();
        let expected = (self.expected)(&inputs);
        assert_eq!(results.len(), expected.len(), "{}: number of results", self.kernel);
        let mut error: f64 = 0.0;
        for (tensor, want) in results.iter().zip(&expected) {
            let got: Vec<f64> = match tensor.format {
                Format::F32 => outputs.f32(*tensor).iter().map(|x| *x as f64).collect(),
                Format::U32 => outputs.u32(*tensor).iter().map(|x| *x as f64).collect(),
                other => unreachable!("nothing is computed in {other:?}"),
            };
            error = error.max(relative_error(&got, want));
        }
        let (kernel, shape, launches) = (self.kernel, self.shape.clone(), plan.launch_count());
        Ok(CaseReport { kernel, shape, error, tolerance, launches })
    }
}
