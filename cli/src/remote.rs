//! An agent on another machine: the system's `ssh` starts `weft api-proxy` there, which passes bytes on to the agent's socket.
//! So who may ask is decided by that machine's sshd and by the socket's group, and no port is opened for it.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context as Task, Poll};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, Join, ReadBuf};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::context::Host;
use crate::exit::{Exit, Failure};

/// For how long `ssh` keeps a connection open for the next request: a progress that is watched asks four times a second.
const KEPT_OPEN: &str = "ControlPersist=60";

/// The standard streams of an `ssh`, which ends when this is dropped. What it has to say goes to our stderr, and what it has
/// to ask comes from the terminal.
pub struct Bridge {
    streams: Join<ChildStdout, ChildStdin>,
    _ssh: Child,
}

/// Starts `ssh`.
///
/// # Errors
/// When there is none.
pub fn bridge(host: &Host) -> io::Result<Bridge> {
    let mut ssh = Command::new("ssh");
    // One connection serves all requests, where there is a place for its socket that nobody else can write to.
    if let Some(folder) = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)
        && folder.is_absolute()
    {
        // To ssh a percent sign is the beginning of something.
        let folder = folder.display().to_string().replace('%', "%%");
        ssh.args(["-o", "ControlMaster=auto", "-o", KEPT_OPEN]);
        ssh.arg("-o").arg(format!("ControlPath={folder}/weft-ssh-%C"));
    }
    ssh.args(host.arguments()).args(["weft", "api-proxy"]);
    ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut ssh = ssh.spawn()?;
    let (Some(stdout), Some(stdin)) = (ssh.stdout.take(), ssh.stdin.take()) else {
        return Err(io::Error::other("it has no standard streams"));
    };
    Ok(Bridge { streams: tokio::io::join(stdout, stdin), _ssh: ssh })
}

impl AsyncRead for Bridge {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.streams).poll_read(task, buffer)
    }
}

impl AsyncWrite for Bridge {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.streams).poll_write(task, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.streams).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.streams).poll_shutdown(task)
    }
}

/// A standard stream without a buffer of its own.
fn own(stream: &impl AsFd) -> io::Result<File> {
    Ok(File::from_std(stream.as_fd().try_clone_to_owned()?.into()))
}

/// The other end: one connection to the agent's socket, from stdin and to stdout. Ends with the agent's answer.
pub async fn proxy(socket: &Path) -> Result<Exit, Failure> {
    let stream = UnixStream::connect(socket).await.map_err(|error| {
        let message = format!("the agent at {} cannot be reached: {error}", socket.display());
        Failure::Said(Exit::Unreachable, message)
    })?;
    let broken = |error: io::Error| Failure::failed(format!("the connection broke: {error}"));
    let mut stdin = own(&io::stdin()).map_err(broken)?;
    let mut stdout = own(&io::stdout()).map_err(broken)?;
    let (mut answers, mut questions) = stream.into_split();
    let asks = async {
        let asked = tokio::io::copy(&mut stdin, &mut questions).await;
        // Whoever asks has gone, or has asked all there is: the agent hears of it, and ends its answer.
        let _ = questions.shutdown().await;
        asked
    };
    let shown = async {
        let copied = tokio::io::copy(&mut answers, &mut stdout).await;
        stdout.flush().await.and(copied)
    };
    let mut shown = std::pin::pin!(shown);
    let answered = tokio::select! {
        answered = &mut shown => answered,
        asked = asks => match asked {
            Ok(_) => shown.await,
            Err(error) => Err(error),
        },
    };
    answered.map_err(broken)?;
    Ok(Exit::Ok)
}
