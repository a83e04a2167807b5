//! Words of the sandbox that the kernel knows as numbers.

/// Capabilities in the kernel's order: `linux/capability.h`.
const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// One bit a capability, as the kernel and systemd count them.
pub fn capability_bits(names: &[String]) -> Result<u64, String> {
    names.iter().try_fold(0, |bits, name| {
        let known = CAPABILITIES.iter().position(|known| known.eq_ignore_ascii_case(name));
        let number = known.ok_or_else(|| {
            format!("{name:?} is not a capability: write one like CAP_NET_BIND_SERVICE")
        })?;
        Ok(bits | 1 << number)
    })
}

/// The groups that own these device nodes, so that a task that holds a device can open it. Root's
/// group is left out: it opens more than devices.
pub fn device_groups(devices: &[String]) -> Vec<u32> {
    use std::os::unix::fs::MetadataExt;
    let mut groups: Vec<u32> = devices
        .iter()
        .filter_map(|path| std::fs::metadata(path).ok())
        .map(|meta| meta.gid())
        .filter(|&group| group != 0)
        .collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}
