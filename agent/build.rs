//! Leaves out of a release what it never uses: the agent's budget is 8 MB on disk, and most of that is in memory while
//! it runs.
//!
//! A panic ends the agent (`panic = "abort"`), and there are no symbols to name the frames of a stack by, so the tables for
//! unwinding are 0.8 MB of nothing. Functions with the same code are folded, and the addresses that the loader has to fill
//! in are packed (glibc 2.36, Debian 12). All three are asked of LLD, which is what Rust links with on x86-64.
//!
//! What an agent runs while nothing happens is an eighth of its code. Where the linker finds it, it is spread over nearly all
//! pages; the names in `at_rest/functions` are put side by side instead (`at_rest/record.sh` finds them). A name that no
//! function has any more costs nothing but its place there.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=unwind.ld");
    println!("cargo:rerun-if-changed=at_rest/functions");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    let linked_by_lld = is("CARGO_CFG_TARGET_ARCH", "x86_64") && is("CARGO_CFG_TARGET_ENV", "gnu");
    if !linked_by_lld || !is("PROFILE", "release") {
        return;
    }
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let at_rest = format!("{}/at_rest.ld", std::env::var("OUT_DIR").unwrap_or_default());
    let functions = std::fs::read_to_string(format!("{folder}/at_rest/functions"));
    let script = together(&functions.expect("agent/at_rest/functions"));
    std::fs::write(&at_rest, script).expect("the build's own folder");
    for argument in [
        &format!("-T,{folder}/unwind.ld"),
        &format!("-T,{at_rest}"),
        "--no-eh-frame-hdr",
        "--icf=all",
        "-z,pack-relative-relocs",
    ] {
        println!("cargo:rustc-link-arg-bins=-Wl,{argument}");
    }
}

/// A linker script that puts these functions into a section of their own before all others. Each has one by its name, another
/// where it is marked as cold; but for what is written in assembler: of that, an agent seals and opens with one file.
fn together(functions: &str) -> String {
    let names: String = functions
        .lines()
        .map(|name| format!("        *(.text.{name} .text.unlikely.{name})\n"))
        .collect();
    format!(
        "SECTIONS {{\n    .text_at_rest : {{\n        *chacha20_poly1305_x86_64*(.text)\n{names}    }}\n}} INSERT BEFORE .text;\n"
    )
}
