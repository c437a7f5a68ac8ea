//! Labelled buffers, counted in a ledger by category.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::device::Gpu;
use super::ledger::{Category, Ledger, MemoryReport, Releasable};
use super::outbox::Job;
use crate::error::{Error, Remedy, Result};
use crate::signal::Signal;

/// A buffer on the GPU (or, on a measuring [`Gpu`], only its size). Clones share it.
#[derive(Clone)]
pub struct Buffer {
    inner: Arc<Inner>,
}

struct Inner {
    memory: Mutex<Memory>,
    usage: wgpu::BufferUsages,
    label: String,
    bytes: u64,
    category: Category,
    ledger: Arc<Mutex<Ledger>>,
}

/// The memory of a buffer.
struct Memory {
    /// `None` on a measuring [`Gpu`], and while the memory is released.
    raw: Option<wgpu::Buffer>,
    /// Whether the ledger counts it.
    held: bool,
    /// How many users need its contents kept.
    pins: usize,
}

impl Inner {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Releasable for Inner {
    fn release(&self) -> u64 {
        let mut memory = self.memory();
        if memory.pins > 0 {
            return 0;
        }
        let Some(raw) = memory.raw.take() else { return 0 };
        memory.held = false;
        // Without this, bind groups would keep the memory allocated.
        raw.destroy();
        self.ledger.lock().unwrap().remove(self.category, self.bytes);
        self.bytes
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.memory().held {
            self.ledger.lock().unwrap().remove(self.category, self.bytes);
        }
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes)", self.inner.label, self.inner.bytes)
    }
}

impl Buffer {
    /// How to make this buffer smaller.
    pub(super) fn remedy(&self) -> Remedy {
        self.inner.category.remedy()
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.inner.bytes
    }

    /// The whole buffer as a region.
    pub fn region(&self) -> Region {
        Region { buffer: self.clone(), offset: 0, bytes: self.bytes() }
    }

    /// Returns the memory, which must be allocated: see [`Gpu::raw`].
    pub(super) fn raw(&self) -> wgpu::Buffer {
        self.inner.memory().raw.clone().expect("a buffer without memory is used")
    }

    /// Prevents the memory from being released until [`Buffer::unpin`]. Returns whether it is allocated.
    pub(crate) fn pin(&self) -> bool {
        let mut memory = self.inner.memory();
        memory.pins += 1;
        memory.held
    }

    pub(crate) fn unpin(&self) {
        self.inner.memory().pins -= 1;
    }

    pub(super) fn label(&self) -> &str {
        &self.inner.label
    }

    /// Whether it belongs to this device.
    pub(super) fn is_of(&self, gpu: &Gpu) -> bool {
        Arc::ptr_eq(&self.inner.ledger, &gpu.inner.ledger)
    }

    /// Identifies the allocation; the same for all clones.
    pub(super) fn id(&self) -> usize {
        Arc::as_ptr(&self.inner) as usize
    }
}

/// A range of bytes of a buffer that can be bound. [`Buffer::region`] makes one.
#[derive(Clone, Debug)]
pub struct Region {
    /// The buffer.
    pub(crate) buffer: Buffer,
    /// First byte.
    pub(crate) offset: u64,
    /// Length in bytes.
    pub(crate) bytes: u64,
}

/// The most bytes of uploads that staging memory may hold.
const UPLOAD_PIECE: usize = 16 << 20;

impl Gpu {
    /// Allocates `bytes`, rounded up to whole words.
    ///
    /// # Errors
    /// [`Error::Limit`] above the GPU's largest buffer size, [`Error::OutOfMemory`] when there is not enough memory.
    pub fn buffer(&self, label: impl Into<String>, category: Category, bytes: u64) -> Result<Buffer> {
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::UNIFORM
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        self.buffer_for(usage, label.into(), category, bytes)
    }

    /// Allocates a buffer whose contents are not needed from one replay to the next: [`Gpu::release_memory`] may
    /// release its memory.
    pub(crate) fn releasable_buffer(
        &self,
        label: impl Into<String>,
        category: Category,
        bytes: u64,
    ) -> Result<Buffer> {
        let buffer = self.buffer(label, category, bytes)?;
        let mut releasable = self.inner.releasable.lock().unwrap();
        releasable.retain(|known| known.strong_count() > 0);
        let memory: Arc<dyn Releasable> = buffer.inner.clone();
        releasable.push(Arc::downgrade(&memory));
        Ok(buffer)
    }

    /// Releases the memory of activations and of KV caches that no generation is using, for instance while a window is
    /// hidden. Weights, gradients and optimiser states stay allocated, and so do inputs and outputs, which are small.
    /// The next replay of a plan allocates its memory again and gives the same bits. Returns the number of bytes
    /// released.
    ///
    /// # Errors
    /// [`Error::DeviceLost`]. If the memory is no longer available, the next replay returns [`Error::OutOfMemory`].
    pub async fn release_memory(&self) -> Result<u64> {
        if self.is_measuring() {
            return Ok(0);
        }
        let released = loop {
            self.drained().await?;
            let jobs = self.inner.outbox.jobs();
            // Jobs in the queue were recorded with the current memory.
            if jobs.is_empty() {
                self.inner.releases.fetch_add(1, Relaxed);
                let releasable = self.inner.releasable.lock().unwrap();
                break releasable.iter().filter_map(Weak::upgrade).map(|buffer| buffer.release()).sum();
            }
        };
        self.poll(wgpu::PollType::Poll)?;
        Ok(released)
    }

    /// Returns a buffer's memory, and allocates it again if it was released.
    pub(super) fn raw(&self, buffer: &Buffer) -> Result<wgpu::Buffer> {
        let Inner { usage, label, bytes, category, ledger, .. } = &*buffer.inner;
        let mut memory = buffer.inner.memory();
        if memory.raw.is_none() {
            memory.raw = Some(self.counted(*usage, label, *category, *bytes, ledger)?);
            memory.held = true;
        }
        Ok(memory.raw.clone().expect("just taken"))
    }

    /// Allocates a buffer that the host reads.
    pub(super) fn staging(&self, label: &str, bytes: u64) -> Result<Buffer> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        self.buffer_for(usage, label.into(), Category::Workspace, bytes)
    }

    pub(super) fn buffer_for(
        &self,
        usage: wgpu::BufferUsages,
        label: String,
        category: Category,
        bytes: u64,
    ) -> Result<Buffer> {
        if bytes > self.limits().buffer {
            return Err(Error::Limit {
                what: label,
                needed: bytes,
                limit: self.limits().buffer,
                remedy: category.remedy(),
            });
        }
        let bytes = bytes.max(4).next_multiple_of(4);
        let ledger = self.inner.ledger.clone();
        let raw = match self.is_measuring() {
            true => {
                ledger.lock().unwrap().add(&label, category, bytes)?;
                None
            }
            false => Some(self.counted(usage, &label, category, bytes, &ledger)?),
        };
        self.count(|c| c.buffers += 1);
        let memory = Mutex::new(Memory { raw, held: true, pins: 0 });
        Ok(Buffer { inner: Arc::new(Inner { memory, usage, label, bytes, category, ledger }) })
    }

    /// Allocates memory and counts it in the ledger.
    fn counted(
        &self,
        usage: wgpu::BufferUsages,
        label: &str,
        category: Category,
        bytes: u64,
        ledger: &Mutex<Ledger>,
    ) -> Result<wgpu::Buffer> {
        ledger.lock().unwrap().add(label, category, bytes)?;
        let allocated = self.allocate(usage, label, bytes);
        if allocated.is_err() {
            ledger.lock().unwrap().remove(category, bytes);
        }
        allocated
    }

    fn allocate(&self, usage: wgpu::BufferUsages, label: &str, bytes: u64) -> Result<wgpu::Buffer> {
        let size = bytes;
        let descriptor =
            wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
        let (what, ledger) = (label.to_owned(), self.inner.ledger.clone());
        let exhausted = move |_| {
            // The ledger counts these bytes already.
            let held = ledger.lock().unwrap().report.total.saturating_sub(bytes);
            Error::OutOfMemory { what, bytes, held, limit: None, remedy: Remedy::LessMemory }
        };
        let (raw, refused) = self.guarded("a buffer", |device| {
            let scope = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
            let raw = device.create_buffer(&descriptor);
            (raw, self.inner.faults.caught(scope, exhausted))
        })?;
        refused.map_or(Ok(raw), Err)
    }

    /// Allocates a buffer that contains `data`.
    pub fn buffer_with<T: bytemuck::NoUninit>(
        &self,
        label: impl Into<String>,
        category: Category,
        data: &[T],
    ) -> Result<Buffer> {
        let buffer = self.buffer(label, category, std::mem::size_of_val(data) as u64)?;
        // No submit in the queue can read this buffer.
        self.write(&buffer.region(), bytemuck::cast_slice(data))?;
        Ok(buffer)
    }

    /// Returns an error for a region of another device.
    fn own(&self, what: &str, region: &Region) -> Result<()> {
        match region.buffer.is_of(self) {
            true => Ok(()),
            false => Err(Error::config(what, format!("{:?} is on another device", region.buffer))),
        }
    }

    /// Copies `data` to the start of `region`, in pieces, to keep staging memory small.
    ///
    /// # Errors
    /// [`Error::Config`] for data that does not fit, or a region of another device.
    pub fn upload<T: bytemuck::NoUninit>(&self, region: &Region, data: &[T]) -> Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(data);
        self.own("upload", region)?;
        if bytes.len() as u64 > region.bytes {
            let Region { buffer, bytes: room, .. } = region;
            let why =
                format!("{} bytes do not fit into this region of {room} bytes of {buffer:?}", bytes.len());
            return Err(Error::config("upload", why));
        }
        // Jobs in the queue must read the old contents.
        self.flush()?;
        self.write(region, bytes)
    }

    /// Writes to the start of a region.
    fn write(&self, region: &Region, bytes: &[u8]) -> Result<()> {
        if self.is_measuring() {
            return Ok(());
        }
        self.inner.activity.lock().unwrap().uploaded += bytes.len() as u64;
        let raw = self.raw(&region.buffer)?;
        for (i, piece) in bytes.chunks(UPLOAD_PIECE).enumerate() {
            let offset = region.offset + (i * UPLOAD_PIECE) as u64;
            self.guarded("an upload", |_| self.queue().write_buffer(&raw, offset, piece))?;
            // Written data stays in staging memory until the next submit.
            let staged = self.inner.staged.fetch_add(piece.len(), Relaxed) + piece.len();
            if staged >= UPLOAD_PIECE {
                self.encode_now("an upload", |_| {})?;
                self.wait_for_uploads()?;
            }
        }
        Ok(())
    }

    /// Reads a region back. For weights and tests; training reads a plan's outputs.
    ///
    /// # Errors
    /// [`Error::Config`] if the region is not a whole number of `T`s with a power-of-two size, or belongs to another
    /// device.
    pub async fn download<T: bytemuck::Pod>(&self, region: &Region) -> Result<Vec<T>> {
        self.own("download", region)?;
        let size = size_of::<T>();
        // A power of two also divides a piece.
        if !size.is_power_of_two() || size > UPLOAD_PIECE || !region.bytes.is_multiple_of(size as u64) {
            let why = format!("{} bytes are not a whole number of elements of {size} bytes", region.bytes);
            return Err(Error::config("download", why));
        }
        let mut out = Vec::with_capacity(region.bytes as usize / size_of::<T>());
        if self.is_measuring() {
            out.resize(region.bytes as usize / size_of::<T>(), T::zeroed());
            return Ok(out);
        }
        self.drained().await?;
        let from = self.raw(&region.buffer)?;
        let piece = UPLOAD_PIECE as u64;
        for start in (0..region.bytes).step_by(UPLOAD_PIECE) {
            let bytes = piece.min(region.bytes - start);
            let staging = self.staging("download", bytes)?;
            self.encode("a download", |e| {
                e.copy_buffer_to_buffer(&from, region.offset + start, &staging.raw(), 0, bytes)
            })?;
            let request = self.guarded("a read-back", |_| MapRequest::new(staging, bytes))?;
            let (bytes, _) = request.read(self).await?;
            out.extend_from_slice(&bytemuck::pod_collect_to_vec::<u8, T>(&bytes));
        }
        Ok(out)
    }

    /// Encodes commands and submits them, after everything in the queue.
    pub(super) fn encode(
        &self,
        what: &'static str,
        record: impl FnOnce(&mut wgpu::CommandEncoder),
    ) -> Result<()> {
        self.flush()?;
        self.encode_now(what, record)
    }

    /// Encodes commands and submits them.
    pub(super) fn encode_now(
        &self,
        what: &'static str,
        record: impl FnOnce(&mut wgpu::CommandEncoder),
    ) -> Result<()> {
        self.count(|c| c.submits += 1);
        self.guarded(what, |device| {
            let mut encoder = device.create_command_encoder(&Default::default());
            record(&mut encoder);
            self.inner.staged.store(0, Relaxed);
            self.note_submit(self.queue().submit([encoder.finish()]));
        })
    }

    /// Fills regions with zero bytes.
    pub fn clear(&self, regions: &[Region]) -> Result<()> {
        regions.iter().try_for_each(|region| self.own("clear", region))?;
        match self.is_measuring() {
            true => Ok(()),
            false => {
                let job = Clear { gpu: self.clone(), regions: regions.to_vec() };
                self.post(Box::new(job), true).map(drop)
            }
        }
    }

    /// Copies `from` to `to`, which must have the same size.
    ///
    /// # Errors
    /// [`Error::Config`] for regions of different sizes or of another device; [`Error::Gpu`] for regions that overlap.
    pub fn copy(&self, from: &Region, to: &Region) -> Result<()> {
        self.own("copy", from).and_then(|()| self.own("copy", to))?;
        if from.bytes != to.bytes {
            let why = format!(
                "from {} bytes to {} bytes: both regions must have the same size",
                from.bytes, to.bytes
            );
            return Err(Error::config("copy", why));
        }
        if self.is_measuring() {
            return Ok(());
        }
        let (a, b) = (self.raw(&from.buffer)?, self.raw(&to.buffer)?);
        self.encode("copying", |e| e.copy_buffer_to_buffer(&a, from.offset, &b, to.offset, from.bytes))
    }

    /// Bytes allocated by category.
    pub fn memory(&self) -> MemoryReport {
        self.inner.ledger.lock().unwrap().report.clone()
    }
}

/// Fills regions with zero bytes.
struct Clear {
    gpu: Gpu,
    regions: Vec<Region>,
}

impl Job for Clear {
    fn submit_next(&mut self) -> Result<bool> {
        let Clear { gpu, regions } = self;
        let raw: Vec<_> = regions.iter().map(|region| gpu.raw(&region.buffer)).collect::<Result<_>>()?;
        gpu.encode_now("clearing", |encoder| {
            for (region, raw) in regions.iter().zip(&raw) {
                encoder.clear_buffer(raw, region.offset, Some(region.bytes));
            }
        })?;
        Ok(false)
    }
}

/// A staging buffer that is being mapped.
pub(super) struct MapRequest {
    buffer: Buffer,
    bytes: u64,
    mapped: Signal<Result<(), wgpu::BufferAsyncError>>,
}

impl MapRequest {
    pub fn new(buffer: Buffer, bytes: u64) -> MapRequest {
        let (mapped, set) = Signal::new();
        buffer.raw().map_async(wgpu::MapMode::Read, 0..bytes, set);
        MapRequest { buffer, bytes, mapped }
    }

    /// Waits for the mapping; returns the bytes and the buffer.
    pub async fn read(self, gpu: &Gpu) -> Result<(Vec<u8>, Buffer)> {
        let mapped = gpu.until(&self.mapped).await?;
        // A pending wgpu error may be the reason why the mapping failed.
        gpu.settle().await?;
        if let Err(why) = mapped {
            // From here on, every call on a lost device returns an error.
            gpu.check("a read-back")?;
            return Err(Error::DeviceLost(format!("a read-back failed: {why:?}")));
        }
        let raw = self.buffer.raw();
        let bytes = match raw.get_mapped_range(0..self.bytes) {
            Ok(mapped) => mapped.to_vec(),
            Err(why) => {
                // Destroying the device unmaps its buffers.
                gpu.check("a read-back")?;
                return Err(Error::Gpu { what: "a read-back".into(), why: why.to_string() });
            }
        };
        raw.unmap();
        Ok((bytes, self.buffer))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;
    use crate::Wait;

    #[test]
    fn a_write_beyond_a_buffer_is_refused_by_wgpu_and_the_device_stays_usable() {
        let Some(gpu) = testing::gpu() else { return };
        let buffer = gpu.buffer("small", Category::Workspace, 16).unwrap();
        let beyond = Region { offset: 64, ..buffer.region() };
        let error = gpu.upload(&beyond, &[1u32]).unwrap_err();
        assert!(matches!(error, Error::Gpu { .. }), "{error}");
        assert!(gpu.idle().wait().is_ok());
    }
}
