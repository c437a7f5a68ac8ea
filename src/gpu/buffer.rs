//! Labelled buffers whose bytes are counted in a ledger by category.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::adapter::Gpu;
use crate::error::{Error, Result};

/// What a buffer's bytes are for, in the memory report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// Model weights, trained or frozen.
    Weights,
    /// Gradients of trained weights.
    Gradients,
    /// The optimiser's moments.
    Optimiser,
    /// Activations and their gradients, which plans share.
    Activations,
    /// Keys and values of the sequences being generated.
    KvCache,
    /// Token ids, positions, read-back staging, kernel parameters.
    Workspace,
}

/// Bytes held now and at most, by category.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct MemoryReport {
    /// Bytes held now.
    pub bytes: BTreeMap<Category, u64>,
    /// The sum of `bytes`.
    pub total: u64,
    /// The largest `total` so far.
    pub peak: u64,
}

#[derive(Default)]
pub(super) struct Ledger {
    report: MemoryReport,
    allocations: u64,
}

impl Ledger {
    fn add(&mut self, category: Category, bytes: u64) {
        *self.report.bytes.entry(category).or_default() += bytes;
        self.report.total += bytes;
        self.report.peak = self.report.peak.max(self.report.total);
        self.allocations += 1;
    }

    fn remove(&mut self, category: Category, bytes: u64) {
        *self.report.bytes.entry(category).or_default() -= bytes;
        self.report.total -= bytes;
    }
}

/// A buffer on the adapter (or, on a measuring [`Gpu`], only its size). Clones share it.
#[derive(Clone)]
pub struct Buffer {
    inner: Arc<Inner>,
}

struct Inner {
    raw: Option<wgpu::Buffer>,
    label: String,
    bytes: u64,
    category: Category,
    ledger: Arc<Mutex<Ledger>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.ledger.lock().unwrap().remove(self.category, self.bytes);
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes)", self.inner.label, self.inner.bytes)
    }
}

impl Buffer {
    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.inner.bytes
    }

    /// The whole buffer as a region.
    pub fn region(&self) -> Region {
        Region { buffer: self.clone(), offset: 0, bytes: self.bytes() }
    }

    pub(super) fn raw(&self) -> &wgpu::Buffer {
        self.inner.raw.as_ref().expect("a measuring Gpu has no buffers")
    }

    pub(super) fn label(&self) -> &str {
        &self.inner.label
    }

    /// Identifies the allocation, whatever its clones.
    pub(super) fn id(&self) -> usize {
        Arc::as_ptr(&self.inner) as usize
    }
}

/// A range of bytes of a buffer, bindable by itself.
#[derive(Clone, Debug)]
pub struct Region {
    /// The buffer.
    pub buffer: Buffer,
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// Bytes that one piece of an upload may hold in staging memory.
const UPLOAD_PIECE: usize = 16 << 20;

impl Gpu {
    /// Allocates `bytes`, rounded up to whole words.
    ///
    /// # Errors
    /// [`Error::Limit`] above the adapter's largest buffer, [`Error::OutOfMemory`] when it has no more.
    pub fn buffer(&self, label: impl Into<String>, category: Category, bytes: u64) -> Result<Buffer> {
        let label = label.into();
        let bytes = bytes.max(4).next_multiple_of(4);
        if bytes > self.limits().buffer {
            return Err(Error::Limit {
                what: label,
                needed: bytes,
                limit: self.limits().buffer,
                remedy: "lower the batch size or the lengths, or choose another --adapter".into(),
            });
        }
        let raw = match self.is_measuring() {
            true => None,
            false => Some(self.allocate(&label, bytes)?),
        };
        let ledger = self.inner.ledger.clone();
        ledger.lock().unwrap().add(category, bytes);
        Ok(Buffer { inner: Arc::new(Inner { raw, label, bytes, category, ledger }) })
    }

    fn allocate(&self, label: &str, bytes: u64) -> Result<wgpu::Buffer> {
        let scopes = (
            self.device().push_error_scope(wgpu::ErrorFilter::Validation),
            self.device().push_error_scope(wgpu::ErrorFilter::OutOfMemory),
        );
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::UNIFORM
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        let raw = self.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: bytes,
            usage,
            mapped_at_creation: false,
        });
        let exhausted = pollster::block_on(scopes.1.pop());
        let invalid = pollster::block_on(scopes.0.pop());
        if exhausted.is_some() {
            return Err(Error::OutOfMemory {
                what: label.into(),
                bytes,
                held: self.memory().total,
                remedy: "lower --per-device-train-batch-size, --max-new-tokens or --max-prompt-length, \
                         or use --gradient-checkpointing or --lora-r"
                    .into(),
            });
        }
        match invalid {
            Some(e) => Err(Error::Gpu { what: format!("the buffer {label}"), why: e.to_string() }),
            None => Ok(raw),
        }
    }

    /// Allocates a buffer that holds `data`.
    pub fn buffer_with<T: bytemuck::NoUninit>(
        &self,
        label: impl Into<String>,
        category: Category,
        data: &[T],
    ) -> Result<Buffer> {
        let buffer = self.buffer(label, category, std::mem::size_of_val(data) as u64)?;
        self.upload(&buffer.region(), data)?;
        Ok(buffer)
    }

    /// Copies `data` to the start of `region`, in pieces, so that staging memory stays small.
    pub fn upload<T: bytemuck::NoUninit>(&self, region: &Region, data: &[T]) -> Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(data);
        assert!(bytes.len() as u64 <= region.bytes, "{} bytes do not fit {:?}", bytes.len(), region);
        if self.is_measuring() {
            return Ok(());
        }
        for (i, piece) in bytes.chunks(UPLOAD_PIECE).enumerate() {
            let offset = region.offset + (i * UPLOAD_PIECE) as u64;
            self.queue().write_buffer(region.buffer.raw(), offset, piece);
            if bytes.len() > UPLOAD_PIECE {
                self.queue().submit([]);
                self.wait()?;
            }
        }
        Ok(())
    }

    /// Copies a region back. Blocks; for weights and tests, while training reads go through a plan's outputs.
    pub fn download<T: bytemuck::Pod>(&self, region: &Region) -> Result<Vec<T>> {
        let mut out = Vec::with_capacity(region.bytes as usize / size_of::<T>());
        if self.is_measuring() {
            out.resize(region.bytes as usize / size_of::<T>(), T::zeroed());
            return Ok(out);
        }
        let piece = UPLOAD_PIECE as u64;
        for start in (0..region.bytes).step_by(UPLOAD_PIECE) {
            let bytes = piece.min(region.bytes - start);
            let staging = self.staging("download", bytes);
            let mut encoder = self.device().create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(region.buffer.raw(), region.offset + start, &staging, 0, bytes);
            self.queue().submit([encoder.finish()]);
            let mapped = MapRequest::new(&staging, bytes);
            // Another thread that polls the device may still be on its way to tell us.
            while !mapped.is_done() {
                self.wait()?;
            }
            out.extend_from_slice(&bytemuck::pod_collect_to_vec::<u8, T>(&mapped.take()?));
        }
        Ok(out)
    }

    pub(super) fn staging(&self, label: &str, bytes: u64) -> wgpu::Buffer {
        self.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: bytes.max(4),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    }

    /// Fills a region with zero bytes.
    pub fn clear(&self, regions: &[Region]) -> Result<()> {
        if self.is_measuring() {
            return Ok(());
        }
        let mut encoder = self.device().create_command_encoder(&Default::default());
        for region in regions {
            encoder.clear_buffer(region.buffer.raw(), region.offset, Some(region.bytes));
        }
        self.queue().submit([encoder.finish()]);
        self.check("clearing")
    }

    /// Copies `from` to `to`, both of the same size.
    pub fn copy(&self, from: &Region, to: &Region) -> Result<()> {
        assert_eq!(from.bytes, to.bytes, "a copy between regions of different sizes");
        if self.is_measuring() {
            return Ok(());
        }
        let mut encoder = self.device().create_command_encoder(&Default::default());
        let (a, b) = (from.buffer.raw(), to.buffer.raw());
        encoder.copy_buffer_to_buffer(a, from.offset, b, to.offset, from.bytes);
        self.queue().submit([encoder.finish()]);
        self.check("copying")
    }

    /// Bytes allocated by category.
    pub fn memory(&self) -> MemoryReport {
        self.inner.ledger.lock().unwrap().report.clone()
    }

    /// How many buffers were ever allocated: a replayed step must not raise it.
    pub fn allocations(&self) -> u64 {
        self.inner.ledger.lock().unwrap().allocations
    }
}

/// A staging buffer on its way to the host.
pub(super) struct MapRequest {
    buffer: wgpu::Buffer,
    bytes: u64,
    done: Arc<Mutex<Option<Result<(), wgpu::BufferAsyncError>>>>,
}

impl MapRequest {
    pub fn new(buffer: &wgpu::Buffer, bytes: u64) -> MapRequest {
        let done = Arc::new(Mutex::new(None));
        let flag = done.clone();
        buffer.map_async(wgpu::MapMode::Read, 0..bytes, move |r| *flag.lock().unwrap() = Some(r));
        MapRequest { buffer: buffer.clone(), bytes, done }
    }

    pub fn is_done(&self) -> bool {
        self.done.lock().unwrap().is_some()
    }

    /// The bytes, once the device has been polled until the work was done.
    pub fn take(self) -> Result<Vec<u8>> {
        match self.done.lock().unwrap().take() {
            Some(Ok(())) => {}
            other => return Err(Error::DeviceLost(format!("a read-back failed: {other:?}"))),
        }
        let why = |e: String| Error::Gpu { what: "a read-back".into(), why: e };
        let bytes =
            self.buffer.slice(0..self.bytes).get_mapped_range().map_err(|e| why(e.to_string()))?.to_vec();
        self.buffer.unmap();
        Ok(bytes)
    }
}
