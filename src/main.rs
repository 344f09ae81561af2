use std::process::ExitCode;

/// It gives memory back: a password hash takes 19 MiB for a moment, which glibc's allocator would keep for good, once
/// for each thread that ever computed one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    keyward::cli::main()
}
