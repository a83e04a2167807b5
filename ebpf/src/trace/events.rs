//! Single events: programs started, files opened.

use crate::cgroup::CgroupId;
use crate::hooks::Hooks;
use crate::status::Status;
use libbpf_rs::RingBufferBuilder;
use std::cell::RefCell;
use std::time::Duration;

/// Events since they were last asked for, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Events {
    /// What happened.
    pub events: Vec<Event>,
    /// How many there was no room for, since the trace began.
    pub lost: u64,
}

/// A program that was started, or a file that was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, by the kernel's monotonic clock.
    pub at: Duration,
    /// In which cgroup.
    pub cgroup: CgroupId,
    /// By which process.
    pub process: u32,
    /// Whose parent is this.
    pub parent: u32,
    /// What the process calls itself: at most 15 bytes.
    pub name: String,
    /// Which program, which file: as it was named, cut off at 255 bytes.
    pub path: String,
    /// A file's descriptor, or a negative error number. 0 for programs: those that fail to start are not seen.
    pub result: i64,
}

impl Events {
    pub(super) fn read(hooks: &Hooks) -> Result<Self, Status> {
        let refused = |error: libbpf_rs::Error| Status::refused("events", &error, "");
        let events = RefCell::new(Vec::new());
        let map = hooks.map("events")?;
        let mut builder = RingBufferBuilder::new();
        builder
            .add(&map, |bytes| {
                events.borrow_mut().extend(parse(bytes));
                0
            })
            .map_err(refused)?;
        let ring = builder.build().map_err(refused)?;
        ring.consume().map_err(refused)?;
        drop(ring);
        Ok(Self { events: events.into_inner(), lost: super::lost(hooks)? })
    }
}

/// `struct event` of `events.bpf.h`. `None` if it is cut off.
fn parse(bytes: &[u8]) -> Option<Event> {
    let number =
        |place: usize| Some(u64::from_ne_bytes(bytes.get(place..place + 8)?.try_into().ok()?));
    let short =
        |place: usize| Some(u32::from_ne_bytes(bytes.get(place..place + 4)?.try_into().ok()?));
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    };
    Some(Event {
        at: Duration::from_nanos(number(0)?),
        cgroup: CgroupId(number(8)?),
        process: short(16)?,
        parent: short(20)?,
        result: number(24)? as i64,
        name: text(bytes.get(32..48)?),
        path: text(bytes.get(48..)?),
    })
}
