//! The program `oaif`, see [`oaif::unstable::cli`].

fn main() -> std::process::ExitCode {
    oaif::unstable::cli::main()
}
