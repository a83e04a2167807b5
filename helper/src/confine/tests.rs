use super::*;
use crate::order::Verb;

/// A filter is for the process, and for good: it is tried in one of its own (`tests/orders.rs`). Here: that there is one.
#[test]
fn there_is_a_filter_for_every_verb() {
    for verb in [Verb::TryTraces, Verb::Hardware] {
        let program = filter(verb.rights()).expect("this architecture");
        assert!(program.len() > CALLS.len());
    }
    assert!(
        filter(Verb::TryTraces.rights()).unwrap().len()
            > filter(Verb::Hardware.rights()).unwrap().len()
    );
}

#[test]
fn nothing_that_changes_the_machine_is_on_the_list() {
    let all = [CALLS, OLDER, KERNEL_PROGRAMS].concat();
    for call in [
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_unlinkat,
        libc::SYS_renameat2,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_ptrace,
        libc::SYS_process_vm_writev,
        libc::SYS_kill,
        libc::SYS_socket,
        libc::SYS_connect,
        libc::SYS_setns,
        libc::SYS_unshare,
        libc::SYS_init_module,
        libc::SYS_kexec_load,
        libc::SYS_keyctl,
        libc::SYS_mkdirat,
        libc::SYS_ftruncate,
    ] {
        assert!(!all.contains(&call), "{call}");
    }
}
