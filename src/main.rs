//! The `ade` binary: wires the command line to the library.

fn main() -> std::process::ExitCode {
    ade::cli::main()
}
