//! weftd. All of it is in the library of this package, which the fuzzers reach, too.

fn main() -> std::process::ExitCode {
    weftd::main()
}
