//! The `ade` binary: wires the command line to the library.

use tikv_jemallocator::Jemalloc;

// glibc's keeps up to 64 MiB of freed memory for each of its arenas: large packages, one after the other on other threads, came to
// twice of what they take.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> std::process::ExitCode {
    ade::cli::main()
}
