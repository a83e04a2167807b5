//! A machine: what it is made of, and one that runs.

use crate::control::Control;
use crate::serial::{Said, Shell};
use crate::workshop::{Bench, made};
use anyhow::{Context, Result, bail, ensure};
use fabric::cpuset::CpuSet;
use nix::sched::{CpuSet as Host, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::Deserialize;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a machine may take until its shell answers: a quarter of a minute where nothing else runs.
const BOOT_PATIENCE: Duration = Duration::from_secs(300);
/// Once in some dozens of starts both emulated processors of a stock kernel wait for each other for good, before anything of
/// ours runs. Whoever sat in front of such a machine would switch it off and on.
const STARTS_MAX: u32 = 3;
const STUCK: &str = "watchdog: BUG: soft lockup";
/// How long a script may take that does nothing special.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Argument of a kernel for x86-64: it counts its timer's ticks while it starts, and panics ("IO-APIC + timer doesn't
/// work") where an emulated processor gets too little of a busy machine to see them.
pub const TRUST_THE_TIMER: &str = "no_timer_check";

/// What a machine starts from.
#[derive(Clone, Debug)]
pub enum Boot {
    /// A kernel that QEMU loads, with its arguments: the console and the root are among them.
    Kernel {
        /// The kernel's image.
        kernel: PathBuf,
        /// The initial root, where the kernel cannot mount its root itself.
        initrd: Option<PathBuf>,
        /// Its command line.
        arguments: String,
    },
    /// Firmware (UEFI), which looks for something to start on the disks: the code, and this machine's copy of its
    /// variables.
    Firmware {
        /// Read-only.
        code: PathBuf,
        /// Written to.
        variables: PathBuf,
    },
}

/// What kind of processor it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Arch {
    /// x86-64, of the kind that first had all that Debian 12 wants.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit ARM, as on a small board.
    #[serde(rename = "aarch64")]
    Aarch64,
}

impl Arch {
    /// As weft, Rust and the builder of images call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }
}

/// A disk, and the format of its file.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The file.
    pub file: PathBuf,
    /// Written to by this machine alone; otherwise read-only.
    pub writable: bool,
}

impl Disk {
    /// As QEMU's `-drive` wants it, under this name.
    fn drive(&self, id: &str) -> String {
        let format =
            if self.file.extension().is_some_and(|end| end == "qcow2") { "qcow2" } else { "raw" };
        let only = if self.writable { "off" } else { "on" };
        let file = self.file.display();
        format!("if=none,id={id},format={format},readonly={only},file={file}")
    }
}

/// Some of a machine's CPUs with some of its memory. A machine without any is of one piece.
#[derive(Clone, Debug)]
pub struct MemoryNode {
    /// As QEMU writes them: `0-1`.
    pub cpus: String,
    /// MiB.
    pub memory: u64,
}

/// What a machine is made of. Plain values: a story changes what it needs.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Of its files on the bench.
    pub name: String,
    /// What it is.
    pub arch: Arch,
    /// How it starts.
    pub boot: Boot,
    /// MiB.
    pub memory: u64,
    /// How many CPUs it has, and how many it may get while it runs.
    pub cpus: (u32, u32),
    /// Empty, or CPUs and memory in the same sum as above.
    pub memory_nodes: Vec<MemoryNode>,
    /// In this order: the first one is `/dev/nvme0n1`.
    pub disks: Vec<Disk>,
    /// On an old IDE controller, whose disks tell their health: the first one is `/dev/sda`. On x86-64 only, two at most.
    pub ata_disks: Vec<Disk>,
    /// Whether things can be plugged into it while it runs: a bus called `usb.0`.
    pub has_usb: bool,
    /// Ends of virtual cables, as QEMU's `-netdev` writes them, without the id.
    pub cables: Vec<String>,
    /// systemd credentials, by name, through the firmware's tables (SMBIOS type 11).
    pub credentials: Vec<(String, String)>,
    /// More arguments for the kernel of an image on a disk, through the firmware's tables as well.
    pub more_arguments: Option<String>,
    /// Whether it has the shell of our tests on its second serial port (`hw-tests/shell.sh`). Our images have none, and
    /// nobody can log in to them.
    pub has_shell: bool,
}

impl Machine {
    /// A Debian with systemd and its stock kernel, these programs in `/opt/weft`, two CPUs and no network.
    pub fn debian(bench: &Bench, name: &str, programs: &[(&str, &Path)]) -> Result<Self> {
        let arguments = "root=/dev/nvme0n1 rw console=ttyS0 mitigations=off quiet panic=-1 TERM=dumb \
                         systemd.show_status=0 systemd.firstboot=no systemd.hostname=";
        Ok(Self {
            name: name.into(),
            arch: Arch::X86_64,
            boot: Boot::Kernel {
                kernel: bench.kernel()?,
                initrd: None,
                arguments: format!("{arguments}{name} {TRUST_THE_TIMER}"),
            },
            memory: 512,
            cpus: (2, 2),
            memory_nodes: Vec::new(),
            disks: vec![
                Disk { file: bench.root_disk(name)?, writable: true },
                Disk {
                    file: bench.disk_of(&format!("{name}-programs"), programs)?,
                    writable: false,
                },
            ],
            ata_disks: Vec::new(),
            has_usb: false,
            cables: Vec::new(),
            credentials: Vec::new(),
            more_arguments: None,
            has_shell: true,
        })
    }

    /// A machine that starts from our image (`make image`), on a disk of 4 GiB: one CPU and no network.
    pub fn image(bench: &Bench, name: &str, arch: Arch) -> Result<Self> {
        let (code, variables) = bench.firmware_of(name, arch)?;
        Ok(Self {
            name: name.into(),
            arch,
            boot: Boot::Firmware { code, variables },
            memory: 256,
            cpus: (1, 1),
            memory_nodes: Vec::new(),
            disks: vec![Disk { file: bench.image_disk(name, arch, 4096)?, writable: true }],
            ata_disks: Vec::new(),
            has_usb: false,
            cables: Vec::new(),
            credentials: Vec::new(),
            more_arguments: None,
            has_shell: false,
        })
    }

    /// The same with kernel and initial RAM disk loaded by something else than UEFI, as the loader of a small board or of a
    /// virtual machine does it: 128 MiB are enough then. With UEFI not even 144 are: it holds what it loads, and keeps some for itself,
    /// while the kernel is decompressed.
    pub fn small_image(bench: &Bench, name: &str) -> Result<Self> {
        let mut machine = Self::image(bench, name, Arch::X86_64)?;
        let (kernel, initrd, arguments) = bench.image_pieces(machine.arch)?;
        machine.boot = Boot::Kernel { kernel, initrd: Some(initrd), arguments };
        machine.memory = 128;
        Ok(machine)
    }

    /// A machine that starts as from a network (`make image FORMAT=netboot`): its root is in its memory. One CPU, no disk
    /// and no network.
    pub fn from_memory(name: &str) -> Result<Self> {
        let arch = Arch::X86_64;
        let arguments = "console=ttyS0 quiet loglevel=4 systemd.show_status=auto";
        Ok(Self {
            name: name.into(),
            arch,
            boot: Boot::Kernel {
                kernel: made("", arch, "netboot.linux")?,
                initrd: Some(made("", arch, "netboot.initrd")?),
                arguments: arguments.into(),
            },
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
        })
    }

    /// More arguments for its kernel.
    pub fn argument(&mut self, more: &str) {
        let arguments = match &mut self.boot {
            Boot::Kernel { arguments, .. } => arguments,
            Boot::Firmware { .. } => self.more_arguments.get_or_insert_default(),
        };
        if !arguments.is_empty() {
            arguments.push(' ');
        }
        arguments.push_str(more);
    }

    /// Starts it, and waits for nothing.
    pub fn start(&self, bench: &Bench) -> Result<Running> {
        let sockets = ["console", "shell", "control"].map(|port| {
            let socket = bench.path(&format!("{}.{port}", self.name));
            // Of the same machine before its power failed.
            let _none = fs::remove_file(&socket);
            socket
        });
        let [console, shell, control] = sockets;
        let log = bench.path(&format!("{}.log", self.name));
        let mut command = self.command(bench);
        let port = |id: &str, socket: &Path, log: &str| {
            format!("socket,id={id},path={},server=on,wait=off{log}", socket.display())
        };
        command
            .arg("-chardev")
            .arg(port("console", &console, &format!(",logfile={},logappend=on", log.display())))
            .args(["-serial", "chardev:console"]);
        if self.has_shell {
            command.arg("-chardev").arg(port("shell", &shell, ""));
            command.args(["-serial", "chardev:shell"]);
        }
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", control.display()));
        let said = fs::File::create(bench.path(&format!("{}.qemu", self.name)))?;
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        let child = command.spawn().context("QEMU cannot be started")?;
        let mut running = Running {
            name: self.name.clone(),
            qemu: Qemu(child),
            control: None,
            shell: None,
            shell_socket: shell,
            log,
        };
        running.control = Some(Control::wait(&control).with_context(|| {
            let said = bench.path(&format!("{}.qemu", self.name));
            fs::read_to_string(said).unwrap_or_default()
        })?);
        Ok(running)
    }

    /// Starts it, and waits until the shell on its second serial port answers.
    pub fn boot(&self, bench: &Bench) -> Result<Running> {
        let begun = Instant::now();
        let mut starts = 0;
        loop {
            starts += 1;
            let log = bench.path(&format!("{}.log", self.name));
            let before = fs::metadata(&log).map_or(0, |log| log.len()) as usize;
            let hangs = || -> Result<bool> {
                let said = fs::read(&log)?;
                Ok(String::from_utf8_lossy(&said[before.min(said.len())..]).contains(STUCK))
            };
            let mut running = self.start(bench)?;
            match Shell::wait(&running.shell_socket, BOOT_PATIENCE, hangs) {
                Ok(shell) => {
                    running.shell = Some(shell);
                    let time = begun.elapsed().as_secs_f64();
                    println!("    {} is up after {time:.1} s", self.name);
                    return Ok(running);
                }
                Err(_) if starts < STARTS_MAX && hangs()? => {
                    println!(
                        "    {}: its emulated processors wait for each other: switched off and on",
                        self.name
                    );
                }
                Err(error) => return Err(error).context(format!("booting {}", self.name)),
            }
        }
    }

    fn command(&self, bench: &Bench) -> Command {
        let (program, machine, cpu) = match self.arch {
            Arch::X86_64 => ("qemu-system-x86_64", "q35", "Nehalem"),
            Arch::Aarch64 => ("qemu-system-aarch64", "virt", "cortex-a57"),
        };
        let mut command = bench.qemu(program);
        for folder in bench.firmware() {
            command.arg("-L").arg(folder);
        }
        // Never the processor's own virtualisation: where it is half there, kernels hang.
        command.args(["-accel", "tcg,thread=multi", "-cpu", cpu, "-machine", machine]);
        if self.has_shell {
            // A restart that no story asks for is an end, and noticed as one.
            command.arg("-no-reboot");
        }
        command.args(["-nodefaults", "-display", "none", "-m", &self.memory.to_string()]);
        let (cpus, most) = self.cpus;
        command.arg("-smp").arg(format!("cpus={cpus},maxcpus={most},sockets={most},cores=1"));
        for (number, node) in self.memory_nodes.iter().enumerate() {
            command
                .arg("-object")
                .arg(format!("memory-backend-ram,id=m{number},size={}M", node.memory))
                .arg("-numa")
                .arg(format!("node,nodeid={number},cpus={},memdev=m{number}", node.cpus));
        }
        match &self.boot {
            Boot::Kernel { kernel, initrd, arguments } => {
                command.arg("-kernel").arg(kernel).args(["-append", arguments]);
                if let Some(initrd) = initrd {
                    command.arg("-initrd").arg(initrd);
                }
            }
            Boot::Firmware { code, variables } => {
                for (file, more) in [(code, ",readonly=on"), (variables, "")] {
                    let file = file.display();
                    command.arg("-drive").arg(format!("if=pflash,format=raw,file={file}{more}"));
                }
            }
        }
        for (number, disk) in self.disks.iter().enumerate() {
            command
                .arg("-drive")
                .arg(disk.drive(&format!("d{number}")))
                .arg("-device")
                .arg(format!("nvme,drive=d{number},serial=weft{number}"));
        }
        if !self.ata_disks.is_empty() {
            command.args(["-device", "piix3-ide,id=ide"]);
        }
        for (number, disk) in self.ata_disks.iter().enumerate() {
            command
                .arg("-drive")
                .arg(disk.drive(&format!("a{number}")))
                .arg("-device")
                .arg(format!("ide-hd,bus=ide.{number},drive=a{number},serial=ata{number}"));
        }
        if self.has_usb {
            command.args(["-device", "qemu-xhci,id=usb"]);
        }
        for (number, cable) in self.cables.iter().enumerate() {
            let name =
                self.name.bytes().fold(number as u8, |sum, byte| sum.wrapping_mul(31) ^ byte);
            command
                .arg("-netdev")
                .arg(format!("{cable},id=n{number}"))
                .arg("-device")
                .arg(format!("virtio-net-pci,netdev=n{number},id=nic{number},mac=52:54:00:77:{number:02x}:{name:02x},romfile="));
        }
        for (name, value) in &self.credentials {
            command
                .arg("-smbios")
                .arg(format!("type=11,value=io.systemd.credential:{name}={value}"));
        }
        if let Some(arguments) = &self.more_arguments {
            command
                .arg("-smbios")
                .arg(format!("type=11,value=io.systemd.stub.kernel-cmdline-extra={arguments}"));
        }
        command
    }
}

/// A machine that runs. Dropping it pulls its plug.
pub struct Running {
    name: String,
    qemu: Qemu,
    control: Option<Control>,
    shell: Option<Shell>,
    shell_socket: PathBuf,
    log: PathBuf,
}

impl Running {
    /// Runs a script on it, which must succeed, and gives what it said.
    pub fn run(&mut self, script: &str) -> Result<String> {
        let said = self.try_run(script, PATIENCE)?;
        ensure!(
            said.status == 0,
            "{}: {script}: exit status {}: {}",
            self.name,
            said.status,
            said.text
        );
        Ok(said.text.trim_end().to_owned())
    }

    /// Runs a script on it, however that ends.
    pub fn try_run(&mut self, script: &str, patience: Duration) -> Result<Said> {
        let shell = self.shell.as_mut().context("this machine was started without a shell")?;
        shell.run(script, patience).with_context(|| self.name.clone())
    }

    /// Asks again until there is an answer.
    pub fn wait_until<T>(
        &mut self,
        what: &str,
        patience: Duration,
        mut ask: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let until = Instant::now() + patience;
        loop {
            if let Some(answer) = ask(self)? {
                return Ok(answer);
            }
            if Instant::now() > until {
                bail!("{}: not within {} s: {what}", self.name, patience.as_secs());
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// As its files on the bench are called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it wrote to its console until now.
    pub fn console(&self) -> Result<String> {
        let bytes = fs::read(&self.log)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What is done to it from outside.
    pub fn control(&mut self) -> Result<&mut Control> {
        self.control.as_mut().context("QEMU does not listen")
    }

    /// The process that it is on this machine.
    pub fn process(&self) -> Pid {
        Pid::from_raw(self.qemu.0.id() as i32)
    }

    /// From now on these of its CPUs are emulated by one CPU of this machine, and all else of it by the others: what the
    /// ones do takes no time from the others. Says whether this machine has CPUs enough for that.
    pub fn keep_apart(&mut self, cpus: &CpuSet) -> Result<bool> {
        let process = self.process();
        let allowed = sched_getaffinity(process)?;
        let allowed: Vec<usize> =
            (0..Host::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)).collect();
        let [own, rest @ ..] = &*allowed else { bail!("this machine has no CPU") };
        if rest.is_empty() {
            return Ok(false);
        }
        let set = |cpus: &[usize]| -> Result<Host> {
            let mut set = Host::new();
            cpus.iter().try_for_each(|cpu| set.set(*cpu))?;
            Ok(set)
        };
        let (own, rest) = (set(&[*own])?, set(rest)?);
        let emulated = self.control()?.ask("query-cpus-fast", json!({}))?;
        let threads: Vec<CpuThread> = serde_json::from_value(emulated)?;
        for task in fs::read_dir(format!("/proc/{process}/task"))? {
            let id: i32 = task?.file_name().to_string_lossy().parse()?;
            let is_apart = threads
                .iter()
                .any(|thread| thread.thread_id == id && cpus.contains(thread.cpu_index));
            sched_setaffinity(Pid::from_raw(id), if is_apart { &own } else { &rest })?;
        }
        Ok(true)
    }

    /// What its memory held is gone; what was on its way to the disk, too.
    pub fn pull_the_plug(self) {
        drop(self);
    }
}

/// One of a machine's CPUs, and the thread of QEMU that emulates it.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct CpuThread {
    cpu_index: u16,
    thread_id: i32,
}

struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        // `setpriv` and `nice` have become QEMU itself, so this ends it and nothing else.
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}
