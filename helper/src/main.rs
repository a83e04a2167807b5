//! weft-helper. All of it is in the library of this package.

fn main() -> std::process::ExitCode {
    helper::main()
}
