//! A hash that is the same in every run and every version: names in folders and cgroups are made of it.

/// FNV-1a: spreads names over numbers, the same way in every run.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
