//! Records and runs a single kernel, and compares it with its reference in plain f64.
//!
//!     cargo run --release --example kernel_alone

use oaif::Wait;
use oaif::unstable::gpu::{Arena, Category, Format, Gpu, GpuOptions, Live, Plan, PlanOptions, Recorder};
use oaif::unstable::{ops, reference};

fn main() -> oaif::Result<()> {
    let (rows, cols, epsilon) = (3, 8, 1e-5);
    let x: Vec<f32> = (0..rows * cols).map(|i| (i as f32 * 0.7).sin()).collect();
    let w = vec![0.5; cols];

    // `checked` enables the shaders' bounds checks, which release runs leave out: useful for trying a kernel.
    let gpu = Gpu::open(&GpuOptions::default().checked(true)).wait()?;

    // Inputs are in buffers of ours, with a label and a memory category.
    let x_buffer = gpu.buffer_with("x", Category::Workspace, &x)?;
    let w_buffer = gpu.buffer_with("w", Category::Workspace, &w)?;

    // Ops take and return tensors of a recording, which are names with shapes: nothing runs yet.
    let mut recorder = Recorder::new(&gpu);
    let x_tensor = recorder.bind(&x_buffer.region(), rows, cols, Format::F32);
    let w_tensor = recorder.bind(&w_buffer.region(), 1, cols, Format::F32);
    let y_tensor = ops::norm(&mut recorder, x_tensor, &ops::Norm::rms(w_tensor, epsilon))?;
    for kernel in recorder.kernels() {
        println!("recorded {} {:?}", kernel.name, kernel.constants);
    }

    // Marks what is read back; all other tensors of the plan may share memory.
    recorder.output(y_tensor);

    // Places the memory, compiles the kernels and creates the bind groups, once.
    let plan = Plan::new(&gpu, recorder, &Arena::new(), PlanOptions::default()).wait()?;

    // A replay. Live values may change from one replay to the next; this plan has none.
    let outputs = plan.run(&Live::default()).wait()?;
    let y = outputs.f32(y_tensor);

    // The reference function of the same name.
    let wide = |v: &[f32]| v.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
    let weight = wide(&w);
    let norm = reference::NormWeights::rms(&weight, f64::from(epsilon));
    let expected = reference::norm_forward(&wide(&x), norm);
    for (row, (got, want)) in y.chunks(cols).zip(expected.chunks(cols)).enumerate() {
        let worst = got.iter().zip(want).map(|(g, w)| (f64::from(*g) - w).abs()).fold(0.0, f64::max);
        println!("row {row}: {:?}…, at most {worst:.1e} from the reference", &got[..3]);
    }
    Ok(())
}
