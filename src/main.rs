//! The program `oaif`, see [`oaif::cli`].

fn main() -> std::process::ExitCode {
    oaif::cli::main()
}
