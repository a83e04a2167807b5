//! What the running kernel has: its tracepoints and their arguments by BTF, and what this process may do.

use crate::status::Status;
use libbpf_rs::btf::types::{FuncProto, Ptr, Struct, Typedef};
use libbpf_rs::btf::{Btf, BtfKind, BtfType};

/// Where the kernel describes its types.
pub(crate) const BTF: &str = "/sys/kernel/btf/vmlinux";

/// A capability: number and name.
pub(crate) type Capability = (u32, &'static str);

/// What counts the bytes of cgroups needs this one beside [`LOADS`].
pub(crate) const COUNTS_BYTES: Capability = (12, "CAP_NET_ADMIN");
/// What loads programs that look at the kernel.
pub(crate) const LOADS: [Capability; 2] = [(38, "CAP_PERFMON"), (39, "CAP_BPF")];

/// The kernel's types.
pub(crate) struct Kernel {
    btf: Btf<'static>,
}

impl Kernel {
    pub(crate) fn new() -> Result<Self, Status> {
        let btf = Btf::from_vmlinux().map_err(|error| {
            Status::Unsupported(format!("the kernel's types cannot be read: {error}"))
        })?;
        Ok(Self { btf })
    }

    /// Whether there is a tracepoint of this name.
    pub(crate) fn has(&self, tracepoint: &str) -> bool {
        self.arguments(tracepoint).is_some()
    }

    /// The kinds of a tracepoint's arguments, `None` without such a tracepoint. In BTF every tracepoint is a
    /// pointer to a function that takes a `void *` and then these.
    pub(crate) fn arguments(&self, tracepoint: &str) -> Option<Vec<BtfKind>> {
        let named: Typedef<'_> = self.btf.type_by_name(&format!("btf_trace_{tracepoint}"))?;
        let pointer = Ptr::try_from(named.next_type()?).ok()?;
        let function = FuncProto::try_from(pointer.next_type()?).ok()?;
        let kinds = function.iter().skip(1).map(|argument| {
            let kind = self.btf.type_by_id::<BtfType<'_>>(argument.ty);
            kind.map_or(BtfKind::Void, |ty| ty.skip_mods_and_typedefs().kind())
        });
        Some(kinds.collect())
    }

    /// Whether the structure of this name has such a field.
    pub(crate) fn has_field(&self, structure: &str, field: &str) -> bool {
        let structure: Option<Struct<'_>> = self.btf.type_by_name(structure);
        structure.is_some_and(|structure| {
            structure.iter().any(|member| member.name == Some(field.as_ref()))
        })
    }

    /// `Ok` if all these tracepoints exist; the first that does not, otherwise.
    pub(crate) fn require(&self, tracepoints: &[&str]) -> Result<(), Status> {
        match tracepoints.iter().find(|name| !self.has(name)) {
            None => Ok(()),
            Some(name) => {
                Err(Status::Unsupported(format!("this kernel has no tracepoint '{name}'")))
            }
        }
    }
}

/// Names of those capabilities that this process lacks. CAP_SYS_ADMIN stands for those that load programs.
pub(crate) fn missing(capabilities: &[Capability]) -> Vec<&'static str> {
    const SYS_ADMIN: u32 = 21;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let has = |number: u32| effective & (1 << number) != 0;
    capabilities
        .iter()
        .filter(|one| !has(one.0) && (**one == COUNTS_BYTES || !has(SYS_ADMIN)))
        .map(|(_, name)| *name)
        .collect()
}

/// CPUs that the kernel could bring online, as libbpf counts them.
pub(crate) fn possible_cpus() -> usize {
    libbpf_rs::num_possible_cpus().unwrap_or(1)
}
