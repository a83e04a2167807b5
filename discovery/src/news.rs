//! What the kernel tells everybody who listens (netlink(7)).

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Of each message, so many bytes are read: enough to see what it is about.
pub const MESSAGE_BYTES: usize = 64;

/// A socket that hears the messages of some groups.
#[derive(Debug)]
pub struct News {
    socket: AsyncFd<OwnedFd>,
}

impl News {
    /// Starts listening. `groups` is a mask of the protocol's groups. Needs a runtime with I/O. Fails where the process
    /// may not open netlink sockets.
    #[allow(unsafe_code)]
    pub fn open(protocol: SockProtocol, groups: u32) -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            protocol,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        // SAFETY: the `OwnedFd` keeps its descriptor open, and the same, until the `AsyncFd` drops it.
        let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Self { socket: registered? })
    }

    /// Waits for a message that matters, by its first [`MESSAGE_BYTES`]. Several that arrived together count as one, and
    /// one that was lost for want of room matters. Can be cancelled.
    pub async fn heard(&self, matters: impl Fn(&[u8]) -> bool) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            let mut heard = false;
            let mut message = [0; MESSAGE_BYTES];
            loop {
                match recv(self.socket.as_raw_fd(), &mut message, MsgFlags::empty()) {
                    // A longer message is cut.
                    Ok(length) => heard |= matters(&message[..length]),
                    Err(Errno::ENOBUFS) => heard = true,
                    Err(Errno::EINTR) => {}
                    Err(Errno::EAGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
            if heard {
                return Ok(());
            }
        }
    }
}
