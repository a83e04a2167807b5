//! What tasks print. Under both executors a task writes straight into two files that are opened for
//! appending: it prints on while the agent is dead, `stdout` and `stderr` stay apart, no process runs
//! for it, and one talkative task cannot push out the lines of the others.
//!
//! Rotation makes a hole: the file system frees everything but the last [`KEPT_BYTES`], while the
//! file keeps its length. The writer notices nothing, not a byte of the rest is lost, and positions of
//! readers stay true. After a tebibyte it begins anew. A file system without holes gets its file cut to nothing
//! instead. When that happens is in [`rotation`]. Nothing is rotated while no agent runs.

use bytes::Bytes;
use futures_util::Stream;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::libc;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;

pub mod rotation;
#[cfg(test)]
mod tests;

/// Bytes of each file that outlive a rotation.
pub const KEPT_BYTES: u64 = 4 << 20;
/// Bytes on disk at which a file is rotated.
pub const ROTATED_BYTES: u64 = 6 << 20;

/// Bytes that a file may be long, most of them freed: well below where a file of ext4 ends, which is 16 TiB.
const LENGTH_MAX: u64 = 1 << 40;
/// How often the end of a file is looked for that runs away.
const OPENINGS_MAX: u32 = 50;
/// Bytes in one piece of a log.
const CHUNK_BYTES: usize = 64 << 10;
/// Pieces that wait for a slow reader; then the reading waits.
const CHUNKS_MAX: usize = 4;
/// Time between two looks for more, while somebody follows.
const FOLLOW_PERIOD: Duration = Duration::from_millis(200);

/// One of the two things a task prints to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Channel {
    /// Both.
    pub const ALL: [Channel; 2] = [Channel::Stdout, Channel::Stderr];

    /// The file's name, and its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Channel::Stdout => "stdout",
            Channel::Stderr => "stderr",
        }
    }

    /// The file in a unit's folder.
    pub fn path(self, folder: &Path) -> PathBuf {
        folder.join(self.name())
    }
}

/// What of a log is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogQuery {
    /// Only the last lines; `None`: all that is kept.
    pub tail: Option<u64>,
    /// Goes on with what comes, until the reader is dropped or the unit's folder is removed. It
    /// does not end with the unit: a restart in place prints into the same files. Otherwise the log ends where it ended
    /// when it was asked for, however much is printed meanwhile.
    pub follow: bool,
    /// One channel; `None`: both, standard output first, and, for who follows, then each as it comes.
    pub channel: Option<Channel>,
}

/// A piece of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogChunk {
    /// Where it was printed.
    pub channel: Channel,
    /// What; never empty.
    pub bytes: Bytes,
}

/// Pieces of a log, in order within each channel. Dropping it ends the reading.
#[derive(Debug)]
pub struct LogStream(mpsc::Receiver<io::Result<LogChunk>>);

impl LogStream {
    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Option<io::Result<LogChunk>> {
        self.0.recv().await
    }
}

impl Stream for LogStream {
    type Item = io::Result<LogChunk>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// Reads the log of the unit in `folder`. The error is `NotFound` when there is none.
pub async fn read(folder: PathBuf, query: LogQuery) -> io::Result<LogStream> {
    let wanted =
        Channel::ALL.into_iter().filter(|&channel| query.channel.is_none_or(|c| c == channel));
    let paths: Vec<_> = wanted.map(|channel| (channel, channel.path(&folder))).collect();
    let readers = blocking(move || {
        let open = |(channel, path): (Channel, PathBuf)| Reader::open(channel, &path, query);
        paths.into_iter().map(open).collect::<io::Result<Vec<_>>>()
    })
    .await?;
    let (chunks, receiver) = mpsc::channel(CHUNKS_MAX);
    tokio::spawn(pump(readers, folder, query.follow, chunks));
    Ok(LogStream(receiver))
}

async fn pump(
    mut readers: Vec<Reader>,
    folder: PathBuf,
    follow: bool,
    chunks: mpsc::Sender<io::Result<LogChunk>>,
) {
    loop {
        let mut idle = true;
        for index in 0..readers.len() {
            loop {
                let mut reader = readers.swap_remove(index);
                let (reader, read) = match blocking(move || Ok((reader.read(), reader))).await {
                    Ok((read, reader)) => (reader, read),
                    Err(error) => return drop(chunks.send(Err(error)).await),
                };
                let channel = reader.channel;
                readers.push(reader);
                let last = readers.len() - 1;
                readers.swap(index, last);
                match read {
                    Ok(bytes) if bytes.is_empty() => break,
                    Ok(bytes) => {
                        idle = false;
                        if chunks.send(Ok(LogChunk { channel, bytes })).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => return drop(chunks.send(Err(error)).await),
                }
            }
        }
        if !follow || (idle && !folder.exists()) {
            return;
        }
        if idle {
            tokio::select! {
                () = chunks.closed() => return,
                () = tokio::time::sleep(FOLLOW_PERIOD) => {}
            }
        }
    }
}

/// One file and how far it was read.
#[derive(Debug)]
struct Reader {
    channel: Channel,
    file: File,
    position: u64,
    /// Where to end.
    end: Option<u64>,
    /// What stands before `position` and was read already.
    ahead: Vec<u8>,
    /// Bytes before `position` that were freed before they were read, and nobody was told yet.
    lost: u64,
    /// What was read last ends within a line.
    within_line: bool,
}

impl Reader {
    fn open(channel: Channel, path: &Path, query: LogQuery) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut tries = 0;
        let (length, position, ahead) = loop {
            let length = file.metadata()?.len();
            if let Some(lines) = query.tail
                && let Some(ahead) = last_lines(&file, length, lines)?
            {
                break (length, length, ahead);
            }
            let start = first_kept(&file, length);
            let position = match query.tail {
                None => start,
                Some(lines) => tail(&file, start, length, lines)?,
            };
            // The hole may have passed while the lines were looked for: then these are no lines.
            tries += 1;
            if first_kept(&file, file.metadata()?.len()) <= position || tries == OPENINGS_MAX {
                break (length, position, Vec::new());
            }
        };
        let end = (!query.follow).then_some(length);
        Ok(Self { channel, file, position, end, ahead, lost: 0, within_line: false })
    }

    fn read(&mut self) -> io::Result<Bytes> {
        let bytes = match self.ahead.is_empty() {
            true => self.read_on()?,
            false => std::mem::take(&mut self.ahead).into(),
        };
        if let Some(last) = bytes.last() {
            self.within_line = *last != b'\n';
        }
        Ok(bytes)
    }

    fn read_on(&mut self) -> io::Result<Bytes> {
        let length = self.file.metadata()?.len();
        if length < self.position {
            // It was cut: what follows is new.
            if self.end.is_some() {
                return Ok(Bytes::new());
            }
            self.position = 0;
        }
        let end = self.end.map_or(length, |end| end.min(length));
        loop {
            if self.end.is_some_and(|end| self.position >= end) && self.lost == 0 {
                return Ok(Bytes::new());
            }
            // The hole may have caught up with a slow reader: there is nothing in it but zeroes.
            let start = first_kept_after(&self.file, self.position, length);
            // What comes after the end is nobody's loss.
            let start = start.min(end.max(self.position));
            let mut buffer = vec![0; CHUNK_BYTES.min(end.saturating_sub(start) as usize)];
            let count = self.file.read_at(&mut buffer, start)?;
            buffer.truncate(count);
            // And it may have done so while this was read.
            let kept = first_kept_after(&self.file, start, length) - start;
            let freed = count.min(usize::try_from(kept).unwrap_or(usize::MAX));
            let zeroes = buffer[..freed].iter().rposition(|&byte| byte == 0).map_or(0, |at| at + 1);
            self.lost += start - self.position + zeroes as u64;
            self.position = start + count as u64;
            let bytes = Bytes::from(buffer).slice(zeroes..);
            if self.lost == 0 {
                return Ok(bytes);
            }
            // It goes on with a whole line.
            let line = bytes.iter().position(|&byte| byte == b'\n');
            self.lost += line.map_or(bytes.len(), |at| at + 1) as u64;
            let rest = line.map_or(Bytes::new(), |at| bytes.slice(at + 1..));
            if line.is_some() || count == 0 {
                let lost = std::mem::take(&mut self.lost);
                let end_of_line = if self.within_line { "\n" } else { "" };
                let note = format!(
                    "{end_of_line}weft: {lost} bytes were printed faster than they were read, and are gone\n"
                );
                return Ok([note.as_bytes(), &rest[..]].concat().into());
            }
        }
    }
}

fn first_kept(file: &File, length: u64) -> u64 {
    first_kept_after(file, 0, length)
}

/// Where data begins at or after `position`: past the hole that rotation made.
fn first_kept_after(file: &File, position: u64, length: u64) -> u64 {
    if position >= length {
        return position;
    }
    use std::os::fd::AsRawFd;
    // SAFETY: no memory is passed.
    let data = unsafe { libc::lseek(file.as_raw_fd(), position as libc::off_t, libc::SEEK_DATA) };
    // ENXIO: nothing but a hole until the end. EINVAL: the file system does not know holes.
    match data {
        -1 if nix::errno::Errno::last() == nix::errno::Errno::ENXIO => length,
        -1 => position,
        data => data as u64,
    }
}

/// The last `lines` lines, if they are short. It is one read, and asks nothing that waits for whoever prints: what was freed meanwhile
/// reads as zeroes.
fn last_lines(file: &File, length: u64, lines: u64) -> io::Result<Option<Vec<u8>>> {
    let begin = length.saturating_sub(CHUNK_BYTES as u64);
    let mut buffer = vec![0; (length - begin) as usize];
    match file.read_exact_at(&mut buffer, begin) {
        // It was cut.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let known = buffer.iter().rposition(|&byte| byte == 0).map_or(0, |at| at + 1);
    // The newline at the very end closes the last line, it does not begin another.
    let body = buffer.len().saturating_sub(1).max(known);
    let ends = buffer[known..body].iter().enumerate().rev().filter(|&(_, &byte)| byte == b'\n');
    let Some(wanted) = usize::try_from(lines).ok().and_then(|lines| lines.checked_sub(1)) else {
        return Ok(None);
    };
    Ok(ends.map(|(at, _)| known + at + 1).nth(wanted).map(|from| buffer.split_off(from)))
}

/// Where the last `lines` lines begin, not before `start`.
fn tail(file: &File, start: u64, length: u64, lines: u64) -> io::Result<u64> {
    if lines == 0 {
        return Ok(length);
    }
    let mut seen = 0;
    let mut end = length;
    while end > start {
        let begin = end.saturating_sub(CHUNK_BYTES as u64).max(start);
        let mut buffer = vec![0; (end - begin) as usize];
        file.read_exact_at(&mut buffer, begin)?;
        for (offset, _) in buffer.iter().enumerate().rev().filter(|&(_, &byte)| byte == b'\n') {
            let at = begin + offset as u64;
            // The newline at the very end closes the last line, it does not begin another.
            if at + 1 < length {
                seen += 1;
                if seen == lines {
                    return Ok(at + 1);
                }
            }
        }
        end = begin;
    }
    Ok(start)
}

/// Frees what is more than kept, when a file has grown past `rotated` bytes on disk, and gives back its length. One that nears
/// the greatest length that file systems know begins anew. Blocks.
pub fn rotate(path: &Path, rotated: u64, kept: u64) -> io::Result<u64> {
    let meta = std::fs::metadata(path)?;
    // Whole blocks: of a part of one, zeroes would stay.
    let block = meta.blksize().max(1);
    let hole = meta.len().saturating_sub(kept) / block * block;
    if meta.len() > LENGTH_MAX {
        return File::options().write(true).open(path)?.set_len(0).map(|()| 0);
    }
    if meta.blocks() * 512 <= rotated || hole == 0 {
        return Ok(meta.len());
    }
    let file = File::options().write(true).open(path)?;
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    match fallocate(&file, flags, 0, hole as libc::off_t) {
        Ok(()) => Ok(meta.len()),
        Err(nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::ENOSYS) => {
            file.set_len(0).map(|()| 0)
        }
        Err(error) => Err(error.into()),
    }
}

/// Runs something that blocks beside the loop.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
