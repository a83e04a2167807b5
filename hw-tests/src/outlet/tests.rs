use super::*;
use crate::machine::{Arch, Boot};
use std::process::Command;

/// Without a machine that could run: `boards_join` has one.
#[test]
fn a_switch_says_when_it_is_done_and_what_it_does_not_know() {
    let folder = std::env::temp_dir().join(format!("weft-outlet-{}", std::process::id()));
    let bench = Bench::in_folder(&folder).expect("there is room");
    let machine = Machine {
        name: "birch".into(),
        arch: Arch::X86_64,
        boot: Boot::Kernel { kernel: PathBuf::new(), initrd: None, arguments: String::new() },
        memory: 256,
        cpus: (1, 1),
        memory_nodes: Vec::new(),
        disks: Vec::new(),
        ata_disks: Vec::new(),
        has_usb: false,
        cables: Vec::new(),
        credentials: Vec::new(),
        more_arguments: None,
        has_shell: false,
    };
    let outlet = Outlet::new(&bench, machine).expect("there is room");
    for (word, succeeds, said) in [("off", true, ""), ("sideways", false, "on or off\n")] {
        let mut switch = Command::new("sh");
        let output = switch.arg(bench.path("birch.switch")).arg(word).output().expect("a shell");
        assert_eq!(output.status.success(), succeeds, "{word}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), said, "{word}");
    }
    drop(outlet);
    bench.clear();
}
