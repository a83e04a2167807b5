//! Finds a device for each wanted name. `["gpu", "pci:10de:2204"]` may be served by two devices although
//! the first one that is a gpu is the only 10de:2204, so this is a matching, not a search.
//!
//! Source: H. W. Kuhn, "The Hungarian Method for the assignment problem" (1955), reduced to the
//! unweighted case: an augmenting path for each name in turn.

use super::layout::Device;
use crate::limits::{DEVICES_PER_NODE_MAX, JOB_LIST_MAX};

const NONE: u16 = u16::MAX;
const _: () = assert!(DEVICES_PER_NODE_MAX < NONE as usize);

/// Which device serves which name. Lives on the stack: nothing is allocated when there is none.
pub(super) struct Matching {
    device_of: [u16; JOB_LIST_MAX],
}

impl Matching {
    /// The index of the device for the `want`-th name.
    pub fn device(&self, want: usize) -> usize {
        usize::from(self.device_of[want])
    }

    /// Gives each of `wanted` a device of its own, of those that `usable` allows; earlier devices and
    /// earlier names first. The error is the index of a name that got none.
    pub fn find(
        wanted: &[String],
        devices: &[Device],
        usable: impl Fn(usize) -> bool,
    ) -> Result<Matching, usize> {
        let mut matching = Matching { device_of: [NONE; JOB_LIST_MAX] };
        if wanted.len() > JOB_LIST_MAX {
            return Err(JOB_LIST_MAX);
        }
        for want in 0..wanted.len() {
            let mut tried = [0u64; DEVICES_PER_NODE_MAX.div_ceil(64)];
            if !matching.augment(want, wanted, devices, &usable, &mut tried) {
                return Err(want);
            }
        }
        Ok(matching)
    }

    fn augment(
        &mut self,
        want: usize,
        wanted: &[String],
        devices: &[Device],
        usable: &impl Fn(usize) -> bool,
        tried: &mut [u64],
    ) -> bool {
        for (index, device) in devices.iter().enumerate() {
            let (word, bit) = (index / 64, 1u64 << (index % 64));
            if tried[word] & bit != 0 || !usable(index) || !device.is(&wanted[want]) {
                continue;
            }
            tried[word] |= bit;
            let owner = self.device_of[..wanted.len()].iter().position(|&of| of == index as u16);
            let is_free = match owner {
                None => true,
                Some(owner) => self.augment(owner, wanted, devices, usable, tried),
            };
            if is_free {
                self.device_of[want] = index as u16;
                return true;
            }
        }
        false
    }
}
