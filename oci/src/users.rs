//! Who an image's program runs as: names are looked up in the image's own `/etc/passwd` and `/etc/group`, never in the machine's.
//!
//! The rules are Docker's: `USER[:GROUP]`, each a name or a number; a number needs no line in any file; whoever names a group gets no other
//! ones. The files are a stranger's: they are opened within the image, they may be anything, and lines that are not understood are
//! passed over, as libc does.

use crate::limits;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
/// Where a user without a line in `/etc/passwd` is at home.
const HOME: &str = "/";
const RESOLVE_TRIES: usize = 128;

/// Users and groups of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Who a program runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its number.
    pub uid: u32,
    /// Of its first group.
    pub gid: u32,
    /// Of its other groups, in order, each once and none of them the first.
    pub groups: Vec<u32>,
    /// Its name, if it has one in the image.
    pub name: Option<String>,
    /// Its folder: an absolute path.
    pub home: String,
}

/// Why nobody can be found.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// It is there and cannot be read.
    #[error("the image's {path}: {error}")]
    File {
        /// Which of the two.
        path: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// Larger than any that is meant to be read.
    #[error("the image's {0} is no file of at most {max} bytes", max = limits::ACCOUNTS_BYTES_MAX)]
    NoFile(&'static str),
    /// A name.
    #[error("the image has no user {0:?} in its /etc/passwd: name another one, or a number")]
    NoUser(String),
    /// A name.
    #[error("the image has no group {0:?} in its /etc/group: name another one, or a number")]
    NoGroup(String),
    /// It is too large, or the one that means nobody in particular.
    #[error("{0} is no number of a user or group")]
    Number(String),
    /// Of one user.
    #[error("user {0:?} is in more than {max} groups of the image", max = limits::GROUPS_MAX)]
    TooManyGroups(String),
}

impl Accounts {
    /// Reads both files of an image whose root is open; no file is an empty one.
    ///
    /// # Errors
    /// When one is there and is no file, is too large, or cannot be read.
    pub fn read(root: BorrowedFd<'_>) -> Result<Self, UserError> {
        let passwd = contents(root, PASSWD)?;
        let group = contents(root, GROUP)?;
        Ok(Self::parse(&passwd, &group))
    }

    /// From what is in both files.
    pub fn parse(passwd: &[u8], group: &[u8]) -> Self {
        Self {
            users: lines(passwd).filter_map(|line| user(&line)).collect(),
            groups: lines(group).filter_map(|line| self::group(&line)).collect(),
        }
    }

    /// Who `USER[:GROUP]` is; nothing is root.
    ///
    /// # Errors
    /// When a name is not in the image, or a number is none.
    pub fn find(&self, words: &str) -> Result<Account, UserError> {
        let (user, group) = match words.split_once(':') {
            Some((user, group)) => (user, Some(group).filter(|it| !it.is_empty())),
            None => (words, None),
        };
        let user = if user.is_empty() { "0" } else { user };
        let number = number(user)?;
        let found = self.users.iter().find(|it| it.name == user || Some(it.uid) == number);
        let mut account = match (found, number) {
            (Some(found), _) => Account {
                uid: found.uid,
                gid: found.gid,
                groups: Vec::new(),
                name: Some(found.name.clone()),
                home: found.home.clone(),
            },
            (None, Some(uid)) => {
                Account { uid, gid: 0, groups: Vec::new(), name: None, home: HOME.to_owned() }
            }
            (None, None) => return Err(UserError::NoUser(user.to_owned())),
        };
        match (group, &account.name) {
            (Some(group), _) => account.gid = self.group(group)?,
            (None, Some(name)) => account.groups = self.groups_of(name, account.gid)?,
            (None, None) => {}
        }
        Ok(account)
    }

    /// The number of a group, by its name or number.
    ///
    /// # Errors
    /// When the name is not in the image, or the number is none.
    pub fn group(&self, word: &str) -> Result<u32, UserError> {
        let number = number(word)?;
        let found = self.groups.iter().find(|it| it.name == word || Some(it.gid) == number);
        let gid = found.map(|it| it.gid).or(number);
        gid.ok_or_else(|| UserError::NoGroup(word.to_owned()))
    }

    fn groups_of(&self, name: &str, first: u32) -> Result<Vec<u32>, UserError> {
        let mut groups = Vec::new();
        for group in self.groups.iter().filter(|group| group.members.iter().any(|it| it == name)) {
            if group.gid == first || groups.contains(&group.gid) {
                continue;
            }
            if groups.len() == limits::GROUPS_MAX {
                return Err(UserError::TooManyGroups(name.to_owned()));
            }
            groups.push(group.gid);
        }
        Ok(groups)
    }
}

/// The number that a word is, if it is one. The highest one means "as it is" to the kernel.
fn number(word: &str) -> Result<Option<u32>, UserError> {
    if word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let number = word.parse().ok().filter(|number| *number != u32::MAX);
    number.map(Some).ok_or_else(|| UserError::Number(word.to_owned()))
}

/// What is in a file of the image; nothing, if it is not there.
fn contents(root: BorrowedFd<'_>, path: &'static str) -> Result<Vec<u8>, UserError> {
    let failed = |error: io::Error| UserError::File { path, error };
    // A FIFO would wait for somebody who writes.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let mut tries = 0;
    let file = loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Ok(file) => break file,
            Err(Errno::AGAIN) if tries < RESOLVE_TRIES => tries += 1,
            // Images of one program often have no /etc at all.
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
            // What hides a file of a layer below cannot be opened, nor can other devices without a driver.
            Err(Errno::NXIO | Errno::NODEV) => return Err(UserError::NoFile(path)),
            Err(errno) => return Err(failed(errno.into())),
        }
    };
    let stat = rustix::fs::fstat(&file).map_err(|errno| failed(errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(UserError::NoFile(path));
    }
    let mut bytes = Vec::new();
    File::from(file)
        .take(limits::ACCOUNTS_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > limits::ACCOUNTS_BYTES_MAX {
        return Err(UserError::NoFile(path));
    }
    Ok(bytes)
}

/// Lines that are text and no comment.
fn lines(bytes: &[u8]) -> impl Iterator<Item = String> {
    let lines = bytes.split(|byte| *byte == b'\n');
    let texts = lines.filter_map(|line| std::str::from_utf8(line.trim_ascii()).ok());
    texts
        .filter(|line| !line.is_empty() && !line.starts_with('#') && !line.contains('\0'))
        .map(str::to_owned)
}

/// `name:password:uid:gid:comment:home:shell`
fn user(line: &str) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, rest @ ..] = &fields[..] else { return None };
    let home = rest.get(1).copied().filter(|home| home.starts_with('/')).unwrap_or(HOME);
    let user = User {
        name: (*name).to_owned(),
        uid: number(uid).ok()??,
        gid: number(gid).ok()??,
        home: home.to_owned(),
    };
    Some(user).filter(|user| !user.name.is_empty())
}

/// `name:password:gid:member,member`
fn group(line: &str) -> Option<Group> {
    let mut fields = line.split(':');
    let (name, gid) = (fields.next()?, fields.nth(1)?);
    let members = fields.next().unwrap_or_default().split(',').filter(|it| !it.is_empty());
    let gid = number(gid).ok()??;
    let group = Group { name: name.to_owned(), gid, members: members.map(str::to_owned).collect() };
    Some(group).filter(|group| !group.name.is_empty())
}

#[cfg(test)]
mod tests;
