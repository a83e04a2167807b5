//! What the processes of the tests do, and what they know about it: from the kernel's own books about
//! themselves, which know nothing of eBPF.

use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, connect as connect_to, socket,
};
use nix::unistd::Pid;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::Command;
use std::time::{Duration, Instant};

/// Names and values.
pub type Did = Vec<(&'static str, u64)>;

pub fn work(what: &str) -> Did {
    match what {
        "share a cpu" => share_a_cpu(),
        "spin" => spin_for(Duration::from_secs(30)),
        "start processes" => start_processes(),
        "touch pages" => touch_pages(),
        "connect" => connect(),
        "be refused" => be_refused(),
        "datagrams" => datagrams(),
        "open files" => open_files(),
        "spin in a function" => a_function_that_spins(Duration::from_secs(1)),
        "sleep" => sleep(),
        "eat memory" => eat_memory(),
        _ => match what.split_once(' ') {
            Some(("disk", path)) => disk(path),
            Some(("wander", path_and_cgroups)) => wander(path_and_cgroups),
            _ => panic!("no work is called '{what}'"),
        },
    }
}

/// Three threads that compete for one CPU, and sleep in between.
fn share_a_cpu() -> Did {
    let mut one = CpuSet::new();
    one.set(0).expect("there is a first CPU");
    sched_setaffinity(Pid::from_raw(0), &one).expect("any process may stay on one CPU");
    let threads = [0, 1, 2].map(|_| {
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let end = Instant::now() + Duration::from_millis(1200);
            while Instant::now() < end {
                spin_for(Duration::from_millis(7));
                std::thread::sleep(Duration::from_millis(2));
            }
            done.send(()).expect("somebody waits");
            // The kernel's books of a thread are closed when it ends, and the test wants to read them.
            loop {
                std::thread::park();
            }
        });
        ended
    });
    threads.iter().for_each(|ended| ended.recv().expect("the thread spins"));
    Did::new()
}

fn spin_for(time: Duration) -> Did {
    let end = Instant::now() + time;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
    Did::new()
}

fn start_processes() -> Did {
    for _ in 0..25 {
        let status = Command::new("/bin/true").status().expect("there is /bin/true");
        assert!(status.success());
    }
    for _ in 0..7 {
        std::thread::spawn(|| ()).join().expect("the thread ends");
    }
    vec![("started", 25), ("programs", 25), ("exited", 25), ("threads", 7)]
}

fn touch_pages() -> Did {
    const PAGES: usize = 5000;
    let faults = || {
        let used = getrusage(UsageWho::RUSAGE_SELF).expect("anyone may ask");
        (used.minor_page_faults() + used.major_page_faults()) as u64
    };
    let length = std::num::NonZero::new(PAGES * 4096).expect("some pages");
    let before = faults();
    // SAFETY: a fresh mapping wherever there is room; nothing else refers to it.
    let pages = unsafe {
        nix::sys::mman::mmap_anonymous(
            None,
            length,
            nix::sys::mman::ProtFlags::PROT_READ | nix::sys::mman::ProtFlags::PROT_WRITE,
            nix::sys::mman::MapFlags::MAP_PRIVATE,
        )
    }
    .expect("memory enough");
    // SAFETY: the mapping just made, which is not touched by anybody yet. Huge pages would fault but once.
    unsafe {
        nix::sys::mman::madvise(pages, length.get(), nix::sys::mman::MmapAdvise::MADV_NOHUGEPAGE)
    }
    .expect("advice is taken");
    for page in 0..PAGES {
        // SAFETY: within the mapping.
        unsafe { pages.cast::<u8>().add(page * 4096).write_volatile(1) };
    }
    vec![("faults", faults() - before), ("touched", PAGES as u64)]
}

/// Buffers for O_DIRECT must be aligned as the device wants it.
#[repr(C, align(4096))]
struct Aligned([u8; 65536]);

/// Reads and overwrites a file beside the page cache. It is made, and on the disk, before the start.
fn disk(path: &str) -> Did {
    const TIMES: u64 = 32;
    let file = open_direct(path);
    let mut buffer = Box::new(Aligned([7; 65536]));
    for block in 0..TIMES {
        file.write_all_at(&buffer.0, block * 65536).expect("room was made before");
    }
    for block in 0..TIMES * 2 {
        file.read_exact_at(&mut buffer.0, block % TIMES * 65536).expect("what was written");
    }
    vec![("written", TIMES * 65536), ("read", TIMES * 2 * 65536)]
}

fn open_direct(path: &str) -> fs::File {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_DIRECT)
        .open(path)
        .expect("the file can be opened beside the page cache")
}

/// Goes from cgroup to cgroup, and does a little in each, which takes it no time: nobody has much of it to make room for
/// what is counted. A connection belongs to the cgroup that its socket was made in.
fn wander(path_and_cgroups: &str) -> Did {
    let (path, cgroups) = path_and_cgroups.split_once(' ').expect("a path");
    own_network();
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let there = SockaddrIn::from(ipv4(listener.local_addr().expect("bound")));
    let nobody = SockaddrIn::from(ipv4(nobody()));
    let file = open_direct(path);
    let mut buffer = Box::new(Aligned([7; 65536]));
    file.read_exact_at(&mut buffer.0, 0).expect("it is not empty");
    let mut sockets = Vec::new();
    for cgroup in cgroups.split(' ') {
        fs::write(format!("{cgroup}/cgroup.procs"), "0").expect("processes can be moved");
        file.write_all_at(&buffer.0, 0).expect("room was made before");
        file.read_exact_at(&mut buffer.0, 0).expect("what was written");
        std::thread::sleep(Duration::from_micros(1));
        sockets.push([(); 2].map(|()| {
            socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None)
                .expect("two for each cgroup")
        }));
    }
    for [one, other] in &sockets {
        connect_to(one.as_raw_fd(), &there).expect("it listens");
        drop(listener.accept().expect("one has come"));
        connect_to(other.as_raw_fd(), &nobody).expect_err("nobody listens");
    }
    vec![("written", 65536), ("read", 65536), ("slept", 1), ("connected", 1), ("failed", 1)]
}

fn ipv4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(_) => panic!("this was bound to an address of IPv4"),
    }
}

/// A network of its own, where nothing is but loopback.
pub fn own_network() {
    unshare(CloneFlags::CLONE_NEWNET).expect("root may have a network namespace");
    ip("link set lo up");
}

pub fn ip(arguments: &str) {
    let status =
        Command::new("ip").args(arguments.split(' ')).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {arguments}");
}

fn connect() -> Did {
    own_network();
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound");
    for _ in 0..20 {
        drop(TcpStream::connect(address).expect("it listens"));
        drop(listener.accept().expect("one has come"));
    }
    drop(listener);
    let refused = refused(address);
    vec![("connected", 20), ("failed", refused)]
}

fn be_refused() -> Did {
    own_network();
    vec![("failed", refused(nobody()))]
}

fn refused(address: SocketAddr) -> u64 {
    for _ in 0..5 {
        TcpStream::connect(address).expect_err("nobody listens");
    }
    5
}

/// Where nobody listens.
fn nobody() -> SocketAddr {
    let gone = TcpListener::bind("127.0.0.1:0").expect("loopback");
    gone.local_addr().expect("bound")
}

fn datagrams() -> Did {
    own_network();
    let receiver = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let sender = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let address = receiver.local_addr().expect("bound");
    let mut buffer = [0; 2000];
    for _ in 0..100 {
        sender.send_to(&[1; 1000], address).expect("loopback takes it");
        receiver.recv(&mut buffer).expect("it has come");
    }
    // An IPv4 header has 20 bytes, a UDP header 8.
    vec![("packets", 100), ("bytes", 100 * 1028)]
}

fn open_files() -> Did {
    for _ in 0..10 {
        drop(fs::File::open("/proc/self/status").expect("proc is mounted"));
    }
    for _ in 0..3 {
        fs::File::open("/nowhere/at/all").expect_err("it is not there");
    }
    Did::new()
}

/// Until it has had so much of a CPU. Nothing is called in the loop but the clock, once in a while.
#[inline(never)]
fn a_function_that_spins(time: Duration) -> Did {
    let used = || {
        let used = getrusage(UsageWho::RUSAGE_SELF).expect("anyone may ask").user_time();
        Duration::from_micros(used.tv_sec() as u64 * 1_000_000 + used.tv_usec() as u64)
    };
    let end = used() + time;
    let mut number = 1u64;
    while used() < end {
        let mut round = 0;
        while round < 5_000_000 {
            number ^= number << 7;
            number ^= number >> 9;
            round += 1;
        }
    }
    vec![("spun", number)]
}

fn sleep() -> Did {
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(10));
    }
    Did::new()
}

/// Takes four times what the test allows. The process that is to be killed is not this one.
fn eat_memory() -> Did {
    let status = Command::new("/usr/bin/python3")
        .args(["-c", "b = bytearray(64 << 20)"])
        .stderr(std::process::Stdio::null())
        .status()
        .expect("python3 is installed");
    vec![("killed", u64::from(!status.success()))]
}

/// The body of the process: waits to be told, works, says what it did, waits.
pub fn process(work_wanted: &str) {
    say("ready:");
    let mut line = String::new();
    let mut wait = || std::io::stdin().read_line(&mut line).expect("the test speaks");
    wait();
    let did = work(work_wanted);
    let said: Vec<String> = did.iter().map(|(name, value)| format!("{name}={value}")).collect();
    say(&format!("did: {}", said.join(" ")));
    wait();
}

fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().expect("the test listens");
}

/// Sends and takes, so that there is a round-trip time.
pub fn exchange(one: &mut TcpStream, other: &mut TcpStream, bytes: usize) {
    let sent = vec![42; bytes];
    let mut taken = vec![0; bytes];
    std::thread::scope(|scope| {
        scope.spawn(|| one.write_all(&sent).expect("the other takes it"));
        other.read_exact(&mut taken).expect("it comes");
    });
}
