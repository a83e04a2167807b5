//! Tells when a CPU or a device comes, goes, or is switched on or off.
//!
//! The kernel announces each as `ACTION@PATH`, the path being that in `/sys` (kobject_uevent(), which udev hears too). What
//! is there now, a look at the hardware tells, whatever was missed.

use discovery::news::News;
use fabric::clock::Instant;
use nix::sys::socket::SockProtocol;
use std::io;
use std::path::Path;
use std::time::Duration;

/// The kernel's own group, and not the one that udev sends to when it is done.
const GROUP: u32 = 1;
/// What makes a difference to a claim. `change`, `bind` and the like tell of drivers and media.
const ACTIONS: [&str; 4] = ["add", "remove", "online", "offline"];

/// There while udev is busy: loading a driver for what it has just heard of, for example.
const UDEV_BUSY: &str = "/run/udev/queue";
/// After so long it is looked at what there is, even if there is ever more.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);

/// What is plugged in appears piece by piece: a USB device, then its driver, then the serial port that it is. Whoever looks in
/// between finds something that is none of the devices that it will be a moment later.
#[derive(Debug, Default)]
pub struct Settling {
    since: Option<Instant>,
    again: bool,
}

impl Settling {
    /// Something was plugged in or out.
    pub fn heard(&mut self, now: Instant) {
        self.since.get_or_insert(now);
        self.again = true;
    }

    /// Whether it is too early to look.
    pub fn is_going_on(&self) -> bool {
        self.since.is_some()
    }

    /// Asked every second or so: whether that is over now, since nothing more was heard after the last question, or has
    /// taken too long. Said once.
    pub fn is_over(&mut self, now: Instant) -> bool {
        self.is_over_beside(now, Path::new(UDEV_BUSY).exists())
    }

    fn is_over_beside(&mut self, now: Instant, udev_is_busy: bool) -> bool {
        let again = std::mem::take(&mut self.again);
        let late = self.since.is_some_and(|since| now.since(since) >= SETTLED_WITHIN);
        let over = self.since.is_some() && (late || !(again || udev_is_busy));
        if over {
            self.since = None;
        }
        over
    }
}

/// Hears of hardware.
#[derive(Debug)]
pub struct Plugged {
    news: News,
}

impl Plugged {
    /// Starts listening. Needs a runtime with I/O. Fails where the agent may not open netlink sockets.
    pub fn open() -> io::Result<Self> {
        News::open(SockProtocol::NetlinkKObjectUEvent, GROUP).map(|news| Self { news })
    }

    /// Waits until something was plugged in or out. Several that arrived together count as one. Can be cancelled.
    pub async fn changed(&self) -> io::Result<()> {
        self.news.heard(is_hardware).await
    }
}

/// Whether the beginning of a message tells of hardware: not of links, loops and the like, which containers make and
/// remove all day, nor of modules and file systems.
fn is_hardware(message: &[u8]) -> bool {
    let message = String::from_utf8_lossy(message);
    message.split_once('@').is_some_and(|(action, path)| {
        ACTIONS.contains(&action)
            && path.starts_with("/devices/")
            && !path.starts_with("/devices/virtual/")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_and_a_device_are_hardware_and_a_container_is_not() {
        for message in [
            "online@/devices/system/cpu/cpu2\0ACTION=online\0",
            "add@/devices/pci0000:00/0000:00:04.0/usb1/1-1\0ACTION=add",
            "remove@/devices/pci0000:00/0000:00:04.0/usb1/1-1/1-1:1.0/ttyUSB0/tty/ttyU",
        ] {
            assert!(is_hardware(message.as_bytes()), "{message}");
        }
        for message in [
            "add@/devices/virtual/net/veth0\0ACTION=add\0",
            "add@/module/ftdi_sio\0",
            "change@/devices/pci0000:00/0000:00:02.0/drm/card0\0",
            "libudev\0add@",
            "@",
            "",
        ] {
            assert!(!is_hardware(message.as_bytes()), "{message}");
        }
        assert!(!is_hardware(&[0xff; 64]));
    }

    #[test]
    fn it_is_looked_at_once_nothing_more_comes() {
        let at = |seconds| Instant::at(Duration::from_secs(seconds));
        let mut settling = Settling::default();
        assert!(!settling.is_over_beside(at(1), false), "nothing was heard");
        settling.heard(at(1));
        settling.heard(at(1));
        assert!(!settling.is_over_beside(at(2), false), "just now");
        assert!(!settling.is_over_beside(at(3), true), "udev loads a driver");
        settling.heard(at(3));
        assert!(!settling.is_over_beside(at(4), false), "and there is more");
        assert!(settling.is_over_beside(at(5), false));
        assert!(!settling.is_over_beside(at(6), false), "said once");
        for second in 10..20 {
            settling.heard(at(second));
            assert!(!settling.is_over_beside(at(second), false), "ever more, {second}");
        }
        assert!(settling.is_over_beside(at(20), true), "too long");
    }

    #[tokio::test]
    async fn what_the_kernel_announces_is_heard() {
        // The kernel says again what is written there, to whoever listens. That the CPU is on, is true.
        const CPU: &str = "/sys/devices/system/cpu/cpu0/uevent";
        let plugged = Plugged::open().unwrap();
        if let Err(error) = std::fs::write(CPU, "change") {
            eprintln!("skipped: {CPU}: {error}");
            return;
        }
        let patience = std::time::Duration::from_secs(1);
        let heard = tokio::time::timeout(patience, plugged.changed()).await;
        assert!(heard.is_err(), "a change is nothing new");
        std::fs::write(CPU, "online").unwrap();
        let patience = std::time::Duration::from_secs(30);
        tokio::time::timeout(patience, plugged.changed()).await.unwrap().unwrap();
    }
}
