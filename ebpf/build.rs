//! Compiles the programs in `src/*/program.bpf.c` with clang, and sees to it that libelf and zlib are linked
//! statically. Without clang the crate builds all the same, and says at run time that its probes are absent.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One folder a probe.
const PROBES: &[&str] = &[
    "block",
    "faults",
    "network",
    "oom",
    "processes",
    "scheduler",
    "tcp",
    "trace/files",
    "trace/net",
    "trace/offcpu",
    "trace/profile",
    "trace/programs",
    "trace/syscalls",
];

const HEADERS: &[&str] = &[
    "src/vmlinux.h",
    "src/weft.bpf.h",
    "src/trace/trace.bpf.h",
    "src/trace/events.bpf.h",
    "src/trace/stacks.bpf.h",
];

fn main() {
    println!("cargo:rerun-if-env-changed=WEFT_CLANG");
    for header in HEADERS {
        println!("cargo:rerun-if-changed={header}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let absent = PROBES.iter().find_map(|probe| compile(probe, &out).err());
    if let Some(reason) = &absent {
        println!("cargo:warning=built without eBPF probes: {reason}");
        for probe in PROBES {
            fs::write(object(probe, &out), []).expect("OUT_DIR is writable");
        }
    }
    println!("cargo:rustc-env=WEFT_EBPF_ABSENT={}", absent.unwrap_or_default());
    name_calls(&out);
    link_statically(&out);
}

/// The names of system calls, from the C library's headers for the target: a table of numbers and names.
fn name_calls(out: &Path) {
    let compiler = cc::Build::new().try_get_compiler().ok();
    let printed = compiler.and_then(|compiler| {
        let mut command = compiler.to_command();
        command
            .args(["-E", "-dM", "-include", "sys/syscall.h", "-x", "c", "/dev/null"])
            .output()
            .ok()
    });
    let text = printed.map(|ran| String::from_utf8_lossy(&ran.stdout).into_owned());
    let mut calls: Vec<(u64, String)> = text
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.strip_prefix("#define __NR_")?.split_once(' '))
        .filter_map(|(name, number)| Some((number.trim().parse().ok()?, name.to_owned())))
        .collect();
    calls.sort();
    calls.dedup_by_key(|(number, _)| *number);
    fs::write(out.join("calls.rs"), format!("&{calls:?}")).expect("OUT_DIR is writable");
}

fn object(probe: &str, out: &Path) -> PathBuf {
    out.join(format!("{}.bpf.o", probe.replace('/', "-")))
}

/// `-gcodeview` leaves DWARF out, which nobody reads and which is half of the object; the BTF that the
/// loader needs comes with `-g` either way.
fn compile(probe: &str, out: &Path) -> Result<(), String> {
    let source = format!("src/{probe}/program.bpf.c");
    println!("cargo:rerun-if-changed={source}");
    let clang = env::var("WEFT_CLANG").unwrap_or_else(|_| "clang".into());
    let headers = env::var("DEP_BPF_INCLUDE").expect("libbpf-sys says where its headers are");
    let ran = Command::new(&clang)
        .args(["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-gcodeview", "-Wall", "-Werror"])
        .arg(format!("-DWEFT_{}", env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it")))
        .args(["-I", "src", "-I", &headers, "-c", &source, "-o"])
        .arg(object(probe, out))
        .output();
    match ran {
        Err(error) => Err(format!("{clang} cannot be run: {error}")),
        Ok(ran) if !ran.status.success() => {
            let said = String::from_utf8_lossy(&ran.stderr);
            let first = said.lines().find(|line| line.contains("error")).unwrap_or("no message");
            Err(format!("{clang} refuses {source}: {first}"))
        }
        Ok(_) => Ok(()),
    }
}

/// The linker takes the first library of a name that it finds. Here it finds ours first: a script for it that
/// names the archives of libelf, zlib and what libelf itself needs (zstd, in newer releases).
fn link_statically(out: &Path) {
    println!("cargo:rerun-if-env-changed=WEFT_SHARED_LIBELF");
    if env::var_os("WEFT_SHARED_LIBELF").is_some() {
        return;
    }
    let folder = out.join("archives");
    fs::create_dir_all(&folder).expect("OUT_DIR is writable");
    let (Some(elf), Some(zlib)) = (archive("elf"), archive("z")) else {
        println!("cargo:warning=no static libelf and zlib: the shared ones are needed at run time");
        return;
    };
    let more = ["zstd"].into_iter().filter_map(archive);
    let elf: Vec<String> = [elf, zlib.clone()].into_iter().chain(more).collect();
    for (name, archives) in [("elf", elf.join(" ")), ("z", zlib)] {
        fs::write(folder.join(format!("lib{name}.a")), format!("GROUP ( {archives} )\n"))
            .expect("OUT_DIR is writable");
    }
    println!("cargo:rustc-link-search=native={}", folder.display());
}

/// Where the C compiler of the target has the archive `lib{name}.a`.
fn archive(name: &str) -> Option<String> {
    let compiler = cc::Build::new().try_get_compiler().ok()?;
    let printed =
        compiler.to_command().arg(format!("-print-file-name=lib{name}.a")).output().ok()?;
    let path = String::from_utf8(printed.stdout).ok()?.trim().to_owned();
    Path::new(&path).is_absolute().then_some(path)
}
