//! Compiles oaif's kernels with the shader compilers of real GPUs, without a GPU: `scripts/gpu-stats.sh` runs this
//! under each of Mesa's drivers, with a library that replaces the kernel driver. Nothing is executed on the GPUs.

mod bounds;
mod compile;
mod driver;
mod kernel_file;
mod main_loop;
mod record;
mod report;
mod shapes;
mod stats;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
usage: oaif-gpu-stats write DIR [SHAPE…]
           writes the kernels that oaif chooses on the GPU that the loader finds to DIR/*.wgsl, for models of these shapes:
           names, or folders with a config.json; by default all names
       oaif-gpu-stats compile DIR
           compiles DIR/*.wgsl with that GPU's driver and writes its statistics to DIR/kernels.jsonl
       oaif-gpu-stats report OUT DEVICE…
           writes tables of OUT/DEVICE/kernels.jsonl to OUT/stats.md; exits with 1 if a kernel breaks a bound";

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["write", dir, ref shapes @ ..] => record::write(Path::new(dir), shapes).map(|()| true),
        ["compile", dir] => compile::compile(Path::new(dir)).map(|()| true),
        ["report", out, ref devices @ ..] => report::report(Path::new(out), devices),
        _ => {
            eprintln!("{USAGE}\nshapes: {}", shapes::names().join(", "));
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("oaif-gpu-stats: {error}");
            ExitCode::from(1)
        }
    }
}
