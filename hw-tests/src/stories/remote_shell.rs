//! Three machines from our image: one was given a key for its remote shell, one what is no key, and one nothing.

use crate::images::{start, told};
use crate::machine::{Arch, Machine, Running};
use crate::workshop::Bench;
use anyhow::{Context, Result, ensure};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long a start may take: a minute where nothing else runs.
const PATIENCE: Duration = Duration::from_secs(1800);
/// systemd's last word of a start.
const STARTED: &str = "Startup finished in ";
/// How long a server may take to say what it is.
const BANNER_WITHIN: Duration = Duration::from_secs(60);

pub fn tell(bench: &Bench) -> Result<()> {
    let key = key(bench, "key")?;
    let other = self::key(bench, "other")?;
    let public = std::fs::read_to_string(key.with_extension("pub"))?.trim().to_owned();
    let begun = Instant::now();
    let (birch, port) = machine(bench, "birch", Some(&public))?;
    let (cedar, of_cedar) = machine(bench, "cedar", Some("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5"))?;
    let (elm, of_elm) = machine(bench, "elm", None)?;
    let machines = [birch, cedar, elm];
    for machine in &machines {
        wait_for(machine, 0, STARTED)?;
        told(machine)?;
    }
    println!("    all are up {} s after their power was switched on", begun.elapsed().as_secs());
    let [birch, cedar, elm] = machines;

    let shell = Shell { bench, port };
    // 3: the agent answers, and the node is in no fabric.
    let status = shell.run(&key, &[], "weft status")?;
    ensure!(status.status.code() == Some(3), "weft status: {status:?}");
    for line in text(&status.stdout).lines().take(3) {
        println!("    birch: {line}");
    }
    let said = shell.run(&key, &["-tt"], "id -u; tty; cat /proc/1/comm")?;
    let said = text(&said.stdout).replace('\r', "");
    ensure!(said == "0\n/dev/pts/0\nsystemd\n", "{said}");
    shell.refused(&other, &[])?;
    let no_key = ["-o", "PubkeyAuthentication=no", "-o", "PasswordAuthentication=yes"];
    shell.refused(&key, &no_key)?;
    let forwarded = shell.run(&key, &["-W", "127.0.0.1:22"], "")?;
    ensure!(
        !forwarded.status.success() && forwarded.stdout.is_empty(),
        "a port is forwarded: {forwarded:?}"
    );
    println!("    another key, a password and a forwarded port are refused");

    let fingerprint = fingerprint(&shell.known())?;
    let told = format!("remote shell: host key {fingerprint}");
    wait_for(&birch, 0, &told)?;
    println!("    its console says which host key is its own: {fingerprint}");
    let (before, begun) = (birch.console()?.len(), Instant::now());
    shell.run(&key, &[], "systemctl reboot")?;
    wait_for(&birch, before, &told)?;
    wait_for(&birch, before, STARTED)?;
    // The client knows the key of before, and would refuse another.
    let again = shell.run(&key, &[], "true")?;
    ensure!(again.status.success(), "{again:?}");
    println!("    after a restart, {} s, it has the same", begun.elapsed().as_secs());
    birch.pull_the_plug();

    // As the status screen has it.
    let trouble = "! credential ssh.authorized_keys.root: line 1 is no public key";
    wait_for(&cedar, 0, trouble)?;
    println!("    cedar's console: {trouble} ...");
    ensure!(banner(of_cedar)?.starts_with("SSH-2.0-"), "its shell does not answer");
    Shell { bench, port: of_cedar }.refused(&key, &[])?;
    let banner = banner(of_elm)?;
    ensure!(banner.is_empty(), "a machine without a key answers: {banner}");
    ensure!(!elm.console()?.contains("host key SHA256:"), "a machine without a key has a host key");
    println!("    elm, without a key, does not answer");
    Ok(())
}

/// A new pair of keys.
fn key(bench: &Bench, name: &str) -> Result<PathBuf> {
    let file = bench.path(name);
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(&file);
    ensure!(command.status().context("ssh-keygen")?.success(), "ssh-keygen has made no key");
    Ok(file)
}

/// A machine with a network that reaches nobody, and the port of this machine that leads to its port 22.
fn machine(bench: &Bench, name: &str, key: Option<&str>) -> Result<(Running, u16)> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let mut machine = Machine::image(bench, name, Arch::X86_64)?;
    machine.cables = vec![format!("user,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22")];
    machine
        .credentials
        .extend(key.map(|key| ("ssh.authorized_keys.root".to_owned(), key.to_owned())));
    Ok((start(bench, machine)?, port))
}

/// Waits until its console has said this, after so many bytes.
fn wait_for(machine: &Running, after: usize, what: &str) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    while !machine.console()?.get(after..).is_some_and(|console| console.contains(what)) {
        ensure!(Instant::now() < until, "{} does not say '{what}'", machine.name());
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

/// What a server says before it is asked; nothing, where nobody listens.
fn banner(port: u16) -> Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, BANNER_WITHIN)?;
    stream.set_read_timeout(Some(BANNER_WITHIN))?;
    let mut bytes = [0; 64];
    // QEMU itself takes the connection, and ends it when the machine does not.
    let read = stream.read(&mut bytes).unwrap_or(0);
    Ok(text(&bytes[..read]))
}

/// The remote shell of a machine, as the client of this one sees it.
struct Shell<'a> {
    bench: &'a Bench,
    port: u16,
}

impl Shell<'_> {
    /// The host keys that the client has seen.
    fn known(&self) -> PathBuf {
        self.bench.path(&format!("known-{}", self.port))
    }

    /// Runs a command there, however that ends. Nothing of who runs this story is used.
    fn run(&self, key: &Path, options: &[&str], script: &str) -> Result<Output> {
        let mut command = Command::new("ssh");
        command.args(["-F", "none", "-p", &self.port.to_string(), "-i"]).arg(key);
        for option in [
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "StrictHostKeyChecking=accept-new",
            "GlobalKnownHostsFile=none",
            "ConnectTimeout=60",
            "BatchMode=yes",
            &format!("UserKnownHostsFile={}", self.known().display()),
        ] {
            command.args(["-o", option]);
        }
        command.args(options).arg("root@127.0.0.1").args((!script.is_empty()).then_some(script));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut client = command.spawn().context("ssh cannot be started")?;
        // A terminal that nobody types at any more would end what runs on it.
        let _typed = client.stdin.take();
        Ok(client.wait_with_output()?)
    }

    /// Nobody is let in with this, and nothing but public keys is asked for.
    fn refused(&self, key: &Path, options: &[&str]) -> Result<()> {
        let output = self.run(key, options, "true")?;
        ensure!(
            !output.status.success()
                && text(&output.stderr).contains("Permission denied (publickey)."),
            "{output:?}"
        );
        Ok(())
    }
}

/// Of the only host key in a client's file.
fn fingerprint(known: &Path) -> Result<String> {
    let output = Command::new("ssh-keygen").arg("-lf").arg(known).output()?;
    let line = text(&output.stdout);
    let print = line.split_whitespace().find(|word| word.starts_with("SHA256:"));
    Ok(print.with_context(|| format!("no fingerprint: {line}"))?.to_owned())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
