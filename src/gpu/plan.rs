//! A finished recording: memory placed, pipelines and bind groups created once.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use super::buffer::{Buffer, Region};
use super::device::Gpu;
use super::kernels::Kernel;
use super::launch::{Groups, LaunchWork, Word};
use super::ledger::Category;
use super::memory::{Arena, Layout};
use super::recorder::{Home, Recorder, TensorInfo};
use super::shader::KernelKey;
use super::step::{STEP_SLOTS, STEP_STRIDE, Step};
use super::tensor::{Dim, Tensor};
use super::timing::Queries;
use crate::error::{Error, Remedy, Result};
use crate::task::Slice;

/// How to build a plan.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlanOptions {
    /// Gives every tensor its own buffer, filled with NaN and fenced, see [`Plan::check_fences`]. For tests.
    pub fenced: bool,
}

/// Words of fence before and after a tensor.
const FENCE: u64 = 256;
const FENCE_WORD: u32 = 0xFFC0_FE4C;

/// A launch that is ready for replay.
pub(super) struct Ready {
    pub name: &'static str,
    pub kernel: Arc<Kernel>,
    /// Offset and size of its parameters in the buffer of all launches' parameters.
    params: Option<(u64, u64)>,
    /// Its tensors, in binding order.
    regions: Vec<Region>,
    pub groups: Groups,
    pub work: LaunchWork,
    pub phase: &'static str,
}

/// A recorded computation that can run any number of times. Clones share it.
#[derive(Clone)]
pub struct Plan {
    pub(super) made: Arc<Made>,
}

/// The contents of a plan.
pub(super) struct Made {
    pub gpu: Gpu,
    pub launches: Vec<Ready>,
    /// Number of recorded launches; a measuring `Gpu` prepares none of them.
    launch_count: usize,
    slots: Vec<Buffer>,
    params: Buffer,
    /// The buffers that the recording was bound to; on a measuring `Gpu`, no launches keep them alive.
    _bound: Vec<Buffer>,
    /// The launches' bind groups.
    pub bindings: Mutex<Bindings>,
    pub steps: Buffer,
    pub step_bindings: Option<wgpu::BindGroup>,
    pub outputs: Vec<(Tensor, Region)>,
    pub ring: Mutex<Vec<Buffer>>,
    pub queries: Option<Queries>,
    pub staging_bytes: u64,
    /// The largest value of each live extent that the tensors have room for.
    pub room: [u32; 8],
}

/// A bind group for each launch.
#[derive(Default)]
pub(super) struct Bindings {
    pub groups: Vec<wgpu::BindGroup>,
    /// The number of memory releases when they were made; `None` if not made yet.
    releases: Option<usize>,
}

impl Plan {
    /// Places the recording's memory in `arena`, compiles its kernels and creates its bind groups. On a measuring
    /// [`Gpu`], only counts the memory and notes the kernels (see [`Gpu::planned_kernels`]).
    ///
    /// # Errors
    /// [`Error::Limit`] for a tensor above the GPU's binding limit, [`Error::OutOfMemory`], [`Error::Shader`];
    /// [`Error::Config`] if the recording or the arena uses memory of another device.
    pub async fn new(gpu: &Gpu, recorder: Recorder, arena: &Arena, options: PlanOptions) -> Result<Plan> {
        recorder.check_complete()?;
        for info in &recorder.tensors {
            if let Home::Region(region) = &info.home
                && !region.buffer.is_of(gpu)
            {
                return Err(Error::config("plan", format!("{} is on another device", info.label)));
            }
        }
        let layout = Layout::plan(&recorder);
        for launch in &recorder.launches {
            for (tensor, _) in &launch.args {
                check_binding(gpu, &recorder, *tensor)?;
            }
        }
        let slots = match options.fenced {
            false => arena.place(gpu, &layout)?,
            true => fenced_slots(gpu, &recorder)?,
        };
        let kernels = compiled(gpu, &mut recorder.kernels()).await?;
        let region = |tensor: Tensor| match &recorder.tensors[tensor.id as usize].home {
            Home::Region(region) => Region { bytes: tensor.bytes(), ..region.clone() },
            Home::Transient if options.fenced => {
                Region { buffer: slots[tensor.id as usize].clone(), offset: FENCE * 4, bytes: tensor.bytes() }
            }
            Home::Transient => {
                let slot = layout.slot_of.get(&tensor.id);
                let slot = slot.unwrap_or_else(|| panic!("{} is never written", recorder.label(tensor)));
                Region { buffer: slots[*slot].clone(), offset: 0, bytes: tensor.bytes() }
            }
        };
        let (params, offsets) = upload_params(gpu, &recorder)?;
        let steps = gpu.buffer("steps", Category::Workspace, STEP_STRIDE * STEP_SLOTS as u64)?;
        let mut launches = Vec::new();
        for (i, (launch, kernel)) in recorder.launches.iter().zip(kernels).enumerate() {
            let bytes = (launch.params.len() as u64 * 4).next_multiple_of(16);
            let params = (bytes > 0).then_some((offsets[i], bytes));
            let regions = launch.args.iter().map(|(tensor, _)| region(*tensor)).collect();
            let phase = recorder.phases.iter().rev().find(|(at, _)| *at <= i).map_or("", |(_, name)| name);
            let (groups, work, name) = (launch.groups, launch.work, launch.kernel.name);
            launches.push(Ready { name, kernel, params, regions, groups, work, phase });
        }
        let step_bindings = match gpu.is_measuring() {
            true => None,
            false => Some(step_bindings(gpu, &steps)?),
        };
        let outputs: Vec<_> = recorder.outputs.iter().map(|t| (*t, region(*t))).collect();
        let queries = Queries::new(gpu)?;
        let query_bytes = queries.as_ref().map_or(0, |q| q.resolved.bytes());
        let staging_bytes = outputs.iter().map(|(t, _)| t.bytes()).sum::<u64>() + query_bytes;
        // The first of the ring; another is allocated if a replay is submitted while none is free.
        let ring = Mutex::new(vec![gpu.staging("outputs", staging_bytes)?]);
        let bound = recorder.tensors.iter().filter_map(|info| match &info.home {
            Home::Region(region) => Some(region.buffer.clone()),
            Home::Transient => None,
        });
        let made = Made {
            gpu: gpu.clone(),
            launches,
            launch_count: recorder.launches.len(),
            slots,
            params,
            _bound: bound.collect(),
            bindings: Mutex::default(),
            steps,
            step_bindings,
            outputs,
            ring,
            queries,
            staging_bytes,
            room: room(&recorder),
        };
        {
            // While this is locked, no memory is released.
            let _jobs = gpu.inner.outbox.jobs();
            made.bind()?;
        }
        Ok(Plan { made: Arc::new(made) })
    }

    /// Returns the number of launches in one replay.
    pub fn launch_count(&self) -> usize {
        self.made.launch_count
    }

    /// Checks that the fences around every tensor of a plan built with [`PlanOptions::fenced`] are intact.
    ///
    /// # Errors
    /// [`Error::SelfCheck`] naming the tensor whose fence was overwritten.
    pub async fn check_fences(&self) -> Result<()> {
        for slot in &self.made.slots {
            let words: Vec<u32> = self.made.gpu.download(&slot.region()).await?;
            let (fence, end) = (FENCE as usize, words.len() - FENCE as usize);
            if words[..fence].iter().chain(&words[end..]).any(|w| *w != FENCE_WORD) {
                return Err(Error::SelfCheck(format!("a kernel wrote outside {}", slot.label())));
            }
        }
        Ok(())
    }
}

/// Returns the compiled kernels, in slices; a measuring `Gpu` only notes them.
async fn compiled(
    gpu: &Gpu,
    keys: &mut (dyn Iterator<Item = &KernelKey> + Send),
) -> Result<Vec<Arc<Kernel>>> {
    if gpu.is_measuring() {
        gpu.note_planned(keys);
        return Ok(Vec::new());
    }
    let (mut kernels, mut slice) = (Vec::new(), Slice::begin());
    for key in keys {
        slice.yield_now().await;
        kernels.push(gpu.kernel(key).await?);
    }
    Ok(kernels)
}

fn check_binding(gpu: &Gpu, recorder: &Recorder, tensor: Tensor) -> Result<()> {
    if tensor.bytes() > gpu.limits().binding {
        let remedy = match &recorder.tensors[tensor.id as usize].home {
            Home::Region(region) => region.buffer.remedy(),
            Home::Transient => Remedy::SmallerBatch,
        };
        return Err(Error::Limit {
            what: format!("{} ({}, {})", recorder.label(tensor), tensor.rows.max(), tensor.cols),
            needed: tensor.bytes(),
            limit: gpu.limits().binding,
            remedy,
        });
    }
    Ok(())
}

/// Allocates one buffer per tensor, with NaN inside and fence words around.
fn fenced_slots(gpu: &Gpu, recorder: &Recorder) -> Result<Vec<Buffer>> {
    let fence = vec![FENCE_WORD; FENCE as usize];
    let slot = |info: &TensorInfo| {
        let words = match info.home {
            Home::Transient => info.tensor.bytes() / 4,
            Home::Region(_) => 0,
        };
        let inside = vec![f32::NAN.to_bits(); words as usize];
        let all = [&fence[..], &inside, &fence].concat();
        gpu.buffer_with(info.label.clone(), Category::Activations, &all)
    };
    recorder.tensors.iter().map(slot).collect()
}

/// Uploads all launches' parameters into one buffer, each at an aligned offset.
fn upload_params(gpu: &Gpu, recorder: &Recorder) -> Result<(Buffer, Vec<u64>)> {
    let align = gpu.limits().alignment as usize / 4;
    let mut words: Vec<u32> = Vec::new();
    let mut offsets = Vec::new();
    for launch in &recorder.launches {
        offsets.push(words.len() as u64 * 4);
        words.extend(launch.params.iter().map(|w| w.bits()));
        words.resize(words.len().next_multiple_of(align.max(4)), 0);
    }
    words.resize(words.len().max(align), 0);
    Ok((gpu.buffer_with("kernel parameters", Category::Workspace, &words)?, offsets))
}

impl Made {
    /// Creates the bind groups, for the first time or again after memory was released, which is then allocated again.
    pub fn bind(&self) -> Result<()> {
        let mut bindings = self.bindings.lock().unwrap();
        let releases = Some(self.gpu.inner.releases.load(Relaxed));
        if bindings.releases != releases {
            let groups = self.launches.iter().map(|launch| self.bind_group(launch)).collect::<Result<_>>()?;
            *bindings = Bindings { groups, releases };
        }
        Ok(())
    }

    fn bind_group(&self, launch: &Ready) -> Result<wgpu::BindGroup> {
        let raw = |region: &Region| self.gpu.raw(&region.buffer);
        let buffers: Vec<wgpu::Buffer> = launch.regions.iter().map(raw).collect::<Result<_>>()?;
        let params = self.params.raw();
        let mut entries = Vec::new();
        if let Some((offset, bytes)) = launch.params {
            entries.push(wgpu::BindGroupEntry { binding: 0, resource: binding(&params, offset, bytes) });
        }
        for (i, (r, buffer)) in launch.regions.iter().zip(&buffers).enumerate() {
            let resource = binding(buffer, r.offset, r.bytes.max(4));
            entries.push(wgpu::BindGroupEntry { binding: i as u32 + 1, resource });
        }
        let (label, layout) = (Some(launch.name), &launch.kernel.layout);
        create_bind_group(&self.gpu, &wgpu::BindGroupDescriptor { label, layout, entries: &entries })
    }
}

fn create_bind_group(gpu: &Gpu, descriptor: &wgpu::BindGroupDescriptor) -> Result<wgpu::BindGroup> {
    gpu.count(|c| c.bind_groups += 1);
    gpu.guarded("a bind group", |device| device.create_bind_group(descriptor))
}

fn binding(buffer: &wgpu::Buffer, offset: u64, bytes: u64) -> wgpu::BindingResource<'_> {
    let size = std::num::NonZero::new(bytes);
    wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size })
}

fn step_bindings(gpu: &Gpu, steps: &Buffer) -> Result<wgpu::BindGroup> {
    let layout = gpu.step_layout();
    let steps = steps.raw();
    let resource = binding(&steps, 0, size_of::<Step>() as u64);
    let entries = &[wgpu::BindGroupEntry { binding: 0, resource }];
    create_bind_group(gpu, &wgpu::BindGroupDescriptor { label: Some("step"), layout, entries })
}

fn room(recorder: &Recorder) -> [u32; 8] {
    let mut room = [u32::MAX; 8];
    let extents = recorder.launches.iter().flat_map(|launch| {
        let params = launch.params.iter().filter_map(|word| match word {
            Word::Extent(dim) => Some(*dim),
            Word::U32(_) | Word::F32(_) => None,
        });
        launch.args.iter().map(|(tensor, _)| tensor.rows).chain(params).chain([launch.groups.rows])
    });
    for dim in extents {
        if let Dim::Live { index, max } = dim {
            let known = &mut room[index as usize];
            *known = max.min(*known);
        }
    }
    room
}
