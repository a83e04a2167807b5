use super::*;
use nix::pty::{OpenptyResult, openpty};
use nix::sys::termios::{BaudRate, LocalFlags, OutputFlags, cfgetispeed, cfgetospeed};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::time::Instant;

struct Desk(PathBuf);

impl Desk {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("weft-port-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("there is room");
        Self(folder)
    }

    fn follow(&self, port: &Path, baud: u32) -> Console {
        let baud = Baud::try_from(baud).expect("a rate");
        Console::follow(port, baud, &self.0.join("log")).expect("there is room for a log")
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _left = fs::remove_dir_all(&self.0);
    }
}

fn until(what: &str, is: impl Fn() -> bool) {
    let started = Instant::now();
    while !is() {
        assert!(started.elapsed() < Duration::from_secs(60), "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A terminal's two ends, and the path of the one that stands for the serial device.
fn device() -> (File, OwnedFd, PathBuf) {
    let OpenptyResult { master, slave } = openpty(None, None).expect("there are terminals");
    let path = fs::read_link(format!("/proc/self/fd/{}", slave.as_raw_fd())).expect("it is open");
    (File::from(master), slave, path)
}

#[test]
fn a_serial_device_is_raw_and_has_its_rate() {
    let desk = Desk::new("raw");
    let (mut board, device, path) = device();
    let before = tcgetattr(&device).expect("a terminal");
    assert!(before.local_flags.contains(LocalFlags::ICANON | LocalFlags::ECHO));
    let console = desk.follow(&path, 57_600);
    until("it is open", || console.trouble().is_none());
    let now = tcgetattr(&device).expect("a terminal");
    assert!(!now.local_flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG));
    assert!(!now.output_flags.contains(OutputFlags::OPOST));
    assert!(now.control_flags.contains(ControlFlags::CLOCAL | ControlFlags::CREAD));
    assert_eq!((cfgetispeed(&now), cfgetospeed(&now)), (BaudRate::B57600, BaudRate::B57600));
    // Nothing of it is taken for a key, an end of file, or a line that is not at its end.
    let said: &[u8] = b"\x03\x04\x11\x13\x1a\x1b[H\r\r\n\xff\x00 no end of a line";
    board.write_all(said).expect("somebody reads");
    until("all has come", || console.heard().expect("ours") == said.len() as u64);
    assert_eq!(console.since(0).expect("ours"), said);
    assert_eq!(console.since(5).expect("ours"), &said[5..]);
    assert!(console.since(1000).expect("ours").is_empty());
}

#[test]
fn a_device_that_somebody_else_reads_is_left_to_him() {
    let (_board, _device, path) = device();
    let first = open(&path, Baud::default()).expect("it is free");
    let error = open(&path, Baud::default()).expect_err("it is not");
    assert!(error.to_string().contains("another program reads it"), "{error}");
    drop(first);
    open(&path, Baud::default()).expect("it is free again");
}

#[test]
fn what_is_no_serial_port_says_so() {
    let desk = Desk::new("none");
    let console = desk.follow(&desk.0.join("port"), 115_200);
    let says = |wanted: &str| console.trouble().is_some_and(|said| said.contains(wanted));
    until("it is missing", || says("No such file"));
    fs::write(desk.0.join("port"), "text").expect("ours");
    until("it is a file", || says("neither a serial device nor a socket"));
    let error = open(Path::new("/dev/null"), Baud::default()).expect_err("it has no rate");
    assert!(error.to_string().contains("no settings of a serial port"), "{error}");
}

/// As the port of a board that powers it itself.
#[test]
fn a_port_that_goes_with_the_power_is_opened_again() {
    let desk = Desk::new("goes");
    let path = desk.0.join("port");
    let console = desk.follow(&path, 115_200);
    for said in ["first", "second"] {
        let listener = UnixListener::bind(&path).expect("a free name");
        let (mut board, _) = listener.accept().expect("it is looked for");
        let heard = console.heard().expect("ours");
        until("it is open", || console.trouble().is_none());
        board.write_all(said.as_bytes()).expect("somebody reads");
        until("it has come", || console.since(heard).expect("ours") == said.as_bytes());
        drop((board, listener));
        fs::remove_file(&path).expect("ours");
        until("it is gone", || console.trouble().is_some());
    }
    assert_eq!(console.since(0).expect("ours"), b"firstsecond");
}
