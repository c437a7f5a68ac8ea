//! The program `oaif`, see [`oaif::unstable::cli`].

use std::env;

fn main() -> std::process::ExitCode {
    // Without this directory, Mesa's layer for choosing a device prints an error to standard error at each start. The program
    // chooses the device itself (`--gpu`), so the layer is switched off.
    if env::var_os("XDG_RUNTIME_DIR").is_none() && env::var_os("NODEVICE_SELECT").is_none() {
        // SAFETY: no other thread runs yet.
        unsafe { env::set_var("NODEVICE_SELECT", "1") };
    }
    oaif::unstable::cli::main()
}
