//! Where machines are made of: QEMU, a kernel and a root from `hw-tests/build.sh`, and the programs under test.

use crate::machine::Arch;
use crate::switch::cable;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Everything that stories share. Nothing in it is written to by a machine.
pub struct Workshop {
    folder: PathBuf,
}

/// One story's own folder: disks, sockets, and what was written to serial ports.
#[derive(Clone, Debug)]
pub struct Bench {
    workshop: PathBuf,
    folder: PathBuf,
}

impl Workshop {
    /// The one in the build folder, or what `WEFT_VM` names. It may be empty: a story of boards takes nothing from it.
    pub fn open() -> Result<Self> {
        let folder = match std::env::var_os("WEFT_VM") {
            Some(folder) => PathBuf::from(folder),
            None => build_folder()?.join("vm"),
        };
        Ok(Self { folder })
    }

    /// Where a story keeps what its machines wrote.
    pub fn logs(&self, story: &str) -> PathBuf {
        self.folder.join("stories").join(story)
    }

    /// An empty bench for a story.
    pub fn bench(&self, story: &str) -> Result<Bench> {
        let bench = Bench::in_folder(&self.logs(story))?;
        Ok(Bench { workshop: self.folder.clone(), ..bench })
    }
}

impl Bench {
    /// One without a workshop, in a folder that is emptied.
    pub(crate) fn in_folder(folder: &Path) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
        Ok(Self { workshop: folder.to_owned(), folder: folder.to_owned() })
    }

    /// Where logs are.
    pub fn logs(&self) -> &Path {
        &self.folder
    }

    /// Removes what a story that went well has left.
    pub fn clear(&self) {
        // Nobody looks at it again, and the next story has a folder of its own.
        let _left = fs::remove_dir_all(&self.folder);
    }

    /// A path on this bench.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// QEMU, with the libraries that were unpacked beside it and not those of this machine.
    pub fn qemu(&self, program: &str) -> Command {
        let tools = self.workshop.join("tools");
        let libraries = tools.join("usr/lib/x86_64-linux-gnu");
        let path = ["", "pulseaudio"].map(|folder| libraries.join(folder).display().to_string());
        // No machine outlives its story, however that ends; and what runs is emulated for minutes, while others want
        // this machine too.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "nice"])
            .arg(tools.join("lib64/ld-linux-x86-64.so.2"))
            .arg("--library-path")
            .arg(format!("{}:{}", path.join(":"), tools.join("lib/x86_64-linux-gnu").display()))
            .arg(tools.join("usr/bin").join(program))
            .env("QEMU_MODULE_DIR", libraries.join("qemu"));
        command
    }

    /// The root that Debians begin as. It is made last: where it is, all of the workshop is.
    fn root(&self) -> Result<PathBuf> {
        let root = self.workshop.join("root.ext4");
        ensure!(
            root.exists(),
            "{} is missing: run hw-tests/build.sh, or make test-vm",
            root.display()
        );
        Ok(root)
    }

    /// Where QEMU finds the firmware of its devices.
    pub fn firmware(&self) -> [PathBuf; 2] {
        ["usr/share/qemu", "usr/share/seabios"]
            .map(|folder| self.workshop.join("tools").join(folder))
    }

    /// The stock kernel.
    pub fn kernel(&self) -> Result<PathBuf> {
        self.root()?;
        let boot = self.workshop.join("tools/boot");
        let mut kernels = fs::read_dir(&boot)?.flatten().map(|entry| entry.path());
        kernels
            .find(|path| {
                path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"vmlinuz"))
            })
            .with_context(|| format!("no kernel in {}", boot.display()))
    }

    /// The machine's firmware (UEFI), and a copy of its variables for the machine of this name.
    pub fn firmware_of(&self, name: &str, arch: Arch) -> Result<(PathBuf, PathBuf)> {
        self.root()?;
        let [code, variables] = match arch {
            Arch::X86_64 => ["OVMF/OVMF_CODE_4M.fd", "OVMF/OVMF_VARS_4M.fd"],
            Arch::Aarch64 => ["AAVMF/AAVMF_CODE.fd", "AAVMF/AAVMF_VARS.fd"],
        }
        .map(|file| self.workshop.join("tools/usr/share").join(file));
        let own = self.path(&format!("{name}.variables"));
        fs::copy(&variables, &own).with_context(|| variables.display().to_string())?;
        Ok((code, own))
    }

    /// A disk of so many MiB that begins as our image and remembers what is written to it.
    pub fn image_disk(&self, name: &str, arch: Arch, mebibytes: u64) -> Result<PathBuf> {
        let image = made("", arch, "raw")?;
        let disk = self.path(&format!("{name}.qcow2"));
        let mut command = self.qemu("qemu-img");
        command.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(image).arg(&disk);
        done(command.arg(format!("{mebibytes}M")))?;
        Ok(disk)
    }

    /// What the image's program for UEFI is made of, for a machine whose loader takes the pieces: kernel, initial RAM disk and
    /// command line.
    pub fn image_pieces(&self, arch: Arch) -> Result<(PathBuf, PathBuf, String)> {
        let whole = made("", arch, "efi")?;
        let piece = |name: &str| self.path(&format!("image.{name}"));
        let mut command = Command::new("objcopy");
        command.args(["-O", "binary"]);
        for name in ["linux", "initrd", "cmdline"] {
            command.arg("--dump-section").arg(format!(".{name}={}", piece(name).display()));
        }
        done(command.arg(whole).arg("/dev/null"))?;
        let arguments = fs::read_to_string(piece("cmdline"))?;
        Ok((piece("linux"), piece("initrd"), arguments.trim_matches(['\0', '\n', ' ']).into()))
    }

    /// A disk that begins as the root and remembers what is written to it.
    pub fn root_disk(&self, name: &str) -> Result<PathBuf> {
        let disk = self.path(&format!("{name}.qcow2"));
        let root = self.root()?;
        let mut command = self.qemu("qemu-img");
        command.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(root).arg(&disk);
        done(&mut command)?;
        Ok(disk)
    }

    /// An empty disk of so many MiB.
    pub fn blank_disk(&self, name: &str, mebibytes: u64) -> Result<PathBuf> {
        let disk = self.path(&format!("{name}.raw"));
        fs::File::create(&disk)?.set_len(mebibytes << 20)?;
        Ok(disk)
    }

    /// A disk of so many MiB with an empty file system.
    pub fn formatted_disk(&self, name: &str, mebibytes: u64) -> Result<PathBuf> {
        let disk = self.blank_disk(name, mebibytes)?;
        done(Command::new("mkfs.ext4").arg("-q").arg(&disk))?;
        Ok(disk)
    }

    /// A disk with a state partition, as images look for it, of so many MiB, which has what is in the folder.
    pub fn state_disk(&self, name: &str, mebibytes: u64, folder: &Path) -> Result<PathBuf> {
        // A mebibyte for a table at each end.
        let disk = self.blank_disk(name, mebibytes + 2)?;
        let mut command = Command::new("mkfs.ext4");
        command.args(["-q", "-E", "offset=1048576", "-d"]).arg(folder).arg(&disk);
        done(command.arg(format!("{mebibytes}M")))?;
        let table = format!("label: gpt\nstart=2048, size={}, name=weft-state\n", mebibytes << 11);
        let mut command = Command::new("sfdisk");
        command.args(["--quiet", "--wipe=never"]).arg(&disk);
        done_with(&mut command, &table)?;
        Ok(disk)
    }

    /// Both ends of a cable between two machines, for [`Machine::cables`](crate::machine::Machine::cables).
    pub fn cable(&self, name: &str) -> [String; 2] {
        let ends = ["left", "right"].map(|end| self.path(&format!("{name}.{end}")));
        [cable(&ends[0], &ends[1]), cable(&ends[1], &ends[0])]
    }

    /// A disk with these files, by their names on it. Symbols for debuggers are left out: they are most of it.
    pub fn disk_of(&self, name: &str, files: &[(&str, &Path)]) -> Result<PathBuf> {
        let folder = self.path(&format!("{name}.d"));
        fs::create_dir_all(&folder)?;
        for (file, source) in files {
            let to = folder.join(file);
            fs::create_dir_all(to.parent().unwrap_or(&folder))?;
            fs::copy(source, &to).with_context(|| source.display().to_string())?;
            if fs::read(&to)?.starts_with(b"\x7fELF") {
                done(Command::new("strip").arg("--strip-debug").arg(&to))?;
            }
        }
        let disk = self.path(&format!("{name}.ext4"));
        let mut command = Command::new("mkfs.ext4");
        done(command.arg("-q").arg("-d").arg(&folder).arg(&disk).arg("256M"))?;
        fs::remove_dir_all(&folder)?;
        Ok(disk)
    }
}

/// Where cargo builds: this program lies in `<build folder>/<profile>`.
pub fn build_folder() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    Ok(program.ancestors().nth(2).context("this program lies in no build folder")?.to_owned())
}

/// What `make image` has made of this version, with `more` behind its number: `weft-VERSION-ARCH.END`. `WEFT_IMAGES` names
/// another folder.
pub fn made(more: &str, arch: Arch, end: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("WEFT_IMAGES") {
        Some(folder) => PathBuf::from(folder),
        None => build_folder()?.join("images/out"),
    };
    let (version, arch) = (env!("CARGO_PKG_VERSION"), arch.name());
    let file = folder.join(format!("weft-{version}{more}-{arch}.{end}"));
    ensure!(file.exists(), "{} is missing: make test-vm builds it first", file.display());
    Ok(file)
}

/// What `images/extension.sh` has made under this name.
pub fn extension(name: &str) -> Result<PathBuf> {
    let file = build_folder()?.join(format!("images/extensions-any/{name}.raw"));
    ensure!(file.exists(), "{} is missing: make test-vm builds it first", file.display());
    Ok(file)
}

/// A program of the workspace, built in the same profile as this one.
pub fn built(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    ensure!(path.exists(), "{} is not built", path.display());
    Ok(path)
}

fn done(command: &mut Command) -> Result<()> {
    done_with(command, "")
}

/// As [`done`], for a command that reads.
fn done_with(command: &mut Command, text: &str) -> Result<()> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
    if let Some(mut input) = child.stdin.take() {
        // Whoever ends without reading it says why.
        let _unread = input.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
