//! Leaves out of a release what it never uses: the agent's budget is 8 MB on disk, and most of that is in memory while
//! it runs.
//!
//! A panic ends the agent (`panic = "abort"`), and there are no symbols to name the frames of a stack by, so the tables for
//! unwinding are 0.8 MB of nothing. Functions with the same code are folded, and the addresses that the loader has to fill
//! in are packed (glibc 2.36, Debian 12). All three are asked of LLD, which is what Rust links with on x86-64.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=unwind.ld");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    let linked_by_lld = is("CARGO_CFG_TARGET_ARCH", "x86_64") && is("CARGO_CFG_TARGET_ENV", "gnu");
    if !linked_by_lld || !is("PROFILE", "release") {
        return;
    }
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    for argument in [
        &format!("-T,{folder}/unwind.ld"),
        "--no-eh-frame-hdr",
        "--icf=all",
        "-z,pack-relative-relocs",
    ] {
        println!("cargo:rustc-link-arg-bins=-Wl,{argument}");
    }
}
