//! A window in which a language model learns from the user's picks, on the GPU that also draws the window.
//!
//!     cargo run --release -- MODEL [PROMPTS.jsonl] [--demo PICKS]
//!
//! MODEL is the folder of a model; PROMPTS.jsonl has a row `{"prompt": …}` per prompt. With `--demo PICKS` the program
//! makes that many picks by itself, prints the frame times, and exits.

mod app;
mod chat;
mod curve;
mod frames;
mod learner;
mod shared;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use app::App;
use eframe::egui_wgpu::{WgpuConfiguration, WgpuSetup, WgpuSetupCreateNew};
use eframe::{NativeOptions, egui, wgpu};

const USAGE: &str = "usage: oaif-desktop MODEL [PROMPTS.jsonl] [--demo PICKS]";

/// The command line.
#[derive(Clone)]
pub struct Arguments {
    pub model: PathBuf,
    pub prompts: Option<PathBuf>,
    /// The number of picks that the program makes by itself.
    pub demo: Option<usize>,
    /// Why the device of the previous window was lost.
    pub lost: Option<String>,
}

/// How the window ended.
#[derive(Clone, Default)]
pub enum Ending {
    /// The user closed it.
    #[default]
    Closed,
    /// Its device was lost, for this reason; it is shown in a new window with a new device.
    Lost(String),
    /// The self-test failed.
    Failed,
}

fn main() -> ExitCode {
    let Some(arguments) = arguments(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match window(&arguments) {
        Ok(Ending::Closed) => ExitCode::SUCCESS,
        Ok(Ending::Lost(why)) if arguments.demo.is_none() && arguments.lost.is_none() => again(&why),
        Ok(Ending::Lost(why)) => {
            eprintln!("the GPU was lost: {why}");
            ExitCode::FAILURE
        }
        Ok(Ending::Failed) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cannot open a window: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Starts the program again to show, in a window with its own device, why this device was lost.
fn again(why: &str) -> ExitCode {
    let child = std::env::current_exe().and_then(|program| {
        std::process::Command::new(program).args(std::env::args().skip(1)).args(["--lost", why]).status()
    });
    match child {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        _ => {
            eprintln!("the GPU was lost: {why}");
            ExitCode::FAILURE
        }
    }
}

fn arguments(mut words: impl Iterator<Item = String>) -> Option<Arguments> {
    let (mut paths, mut demo, mut lost) = (Vec::new(), None, None);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--demo" => demo = Some(words.next()?.parse().ok()?),
            "--lost" => lost = Some(words.next()?),
            option if option.starts_with('-') => return None,
            path => paths.push(PathBuf::from(path)),
        }
    }
    let mut paths = paths.into_iter();
    let arguments = Arguments { model: paths.next()?, prompts: paths.next(), demo, lost };
    paths.next().is_none().then_some(arguments)
}

/// Opens a window and returns when it is closed.
fn window(arguments: &Arguments) -> eframe::Result<Ending> {
    let setup = WgpuSetupCreateNew {
        // The model needs compute shaders with many storage buffers, which OpenGL does not support everywhere.
        instance_descriptor: wgpu::InstanceDescriptor {
            backends: wgpu::Backends::from_env().unwrap_or(wgpu::Backends::PRIMARY),
            ..wgpu::InstanceDescriptor::new_without_display_handle_from_env()
        },
        // A model needs large buffers, so the device is requested with the limits of the GPU.
        device_descriptor: Arc::new(|adapter| wgpu::DeviceDescriptor {
            label: Some("the window and the model"),
            required_limits: adapter.limits(),
            required_features: adapter.features() & oaif::gpu::FEATURES,
            ..Default::default()
        }),
        ..WgpuSetupCreateNew::without_display_handle()
    };
    let options = NativeOptions {
        viewport: egui::ViewportBuilder::default()
            .with_inner_size([1000.0, 660.0])
            .with_min_inner_size([760.0, 560.0]),
        wgpu_options: WgpuConfiguration {
            wgpu_setup: WgpuSetup::CreateNew(setup),
            ..WgpuConfiguration::default()
        },
        run_and_return: true,
        ..NativeOptions::default()
    };
    let ending = Arc::new(Mutex::new(Ending::default()));
    let (arguments, end) = (arguments.clone(), ending.clone());
    let lost = arguments.lost.clone();
    let create: eframe::AppCreator<'_> = Box::new(move |context| {
        let state = context.wgpu_render_state.as_ref().ok_or("the window has no wgpu device")?;
        let app = App::new(arguments, context.egui_ctx.clone(), state.device.clone(), state.queue.clone());
        Ok(Box::new(app.ending_in(end).after_loss(lost)))
    });
    // If the device is lost while a frame is drawn, egui's renderer panics.
    let run = AssertUnwindSafe(|| eframe::run_native("oaif desktop", options, create));
    match catch_unwind(run) {
        Ok(ran) => ran?,
        Err(_) => return Ok(Ending::Lost("a frame could not be drawn".into())),
    }
    Ok(ending.lock().unwrap_or_else(PoisonError::into_inner).clone())
}
