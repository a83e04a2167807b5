//! The socket at standard input: an order comes in, frames go out.

use fabric::api::{Problem, ProblemKind};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::order::{FRAME_BYTES_MAX, Frame, HEAD_BYTES, ORDER, Order};

/// An order has come by then, or nobody gives one.
const ORDER_WITHIN: Duration = Duration::from_secs(10);

/// The socket that the agent left at standard input.
pub fn standard_input() -> io::Result<UnixStream> {
    let own: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    let kind = nix::sys::socket::getsockopt(&own, nix::sys::socket::sockopt::SockType);
    kind.map_err(|_| io::Error::other("standard input is no socket"))?;
    Ok(UnixStream::from(own))
}

/// Whoever gave the order.
pub struct Connection {
    socket: UnixStream,
}

impl Connection {
    /// At the other end of this socket.
    pub fn new(socket: UnixStream) -> Self {
        Self { socket }
    }

    /// Waits for the order, and refuses one that makes no sense.
    pub fn order(&mut self) -> io::Result<Order> {
        self.socket.set_read_timeout(Some(ORDER_WITHIN))?;
        let mut head = [0; HEAD_BYTES];
        self.socket.read_exact(&mut head)?;
        let [kind, length @ ..] = head;
        let length = u32::from_le_bytes(length) as usize;
        if kind != ORDER || length > FRAME_BYTES_MAX {
            return Err(io::Error::other("that is no order"));
        }
        let mut body = Vec::new();
        (&mut self.socket).take(length as u64).read_to_end(&mut body)?;
        Order::decode(&body).map_err(|problem| {
            let error = io::Error::other(problem.to_string());
            let _ = self.say(&Frame::Refused(problem));
            error
        })
    }

    /// Says a part of the answer, and waits until it is taken. The error: nobody listens any more.
    pub fn say(&mut self, frame: &Frame) -> io::Result<()> {
        self.socket.write_all(&frame.encode())
    }

    /// Says one piece that is all of the answer.
    pub fn whole<T: Serialize>(&mut self, answer: &T) -> Result<(), Problem> {
        let json = serde_json::to_vec(answer).map_err(|error| {
            Problem::new(ProblemKind::Internal, "the answer has no JSON form", error.to_string())
        })?;
        // Nobody is there to be told that nobody is there.
        let _ = self.say(&Frame::Piece(json));
        Ok(())
    }

    /// Waits; false: whoever asked has gone.
    pub fn waits(&self, time: Duration) -> bool {
        let mut asked = [PollFd::new(self.socket.as_fd(), PollFlags::empty())];
        let time = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        // A peer that has gone is always said. Interrupted by a signal, it waited less: the next time it will wait more.
        !matches!(poll(&mut asked, time), Ok(count) if count > 0)
    }
}
