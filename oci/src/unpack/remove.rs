//! Removes trees that strangers have made: however deep they are, without following a link, and with three open files.

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// What folders are called that are moved up, to be removed in their turn.
const MOVED: &str = ".removed-";

/// Removes `name` and all that is in it.
///
/// A folder with folders in it gives these up to the topmost one, which holds no more than names then. So no path gets long and
/// nothing calls itself, as deep as somebody may have nested them.
pub(super) fn tree(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return Ok(other?),
    }
    let top = folder(parent, name)?;
    let mut moved = 0_u64;
    loop {
        let names = names(top.as_fd())?;
        if names.is_empty() {
            return Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?);
        }
        for name in names {
            if removed(top.as_fd(), &name)? {
                continue;
            }
            let inner = folder(top.as_fd(), &name)?;
            for name in self::names(inner.as_fd())? {
                if removed(inner.as_fd(), &name)? {
                    continue;
                }
                loop {
                    moved += 1;
                    let up = format!("{MOVED}{moved}");
                    match rustix::fs::renameat_with(
                        &inner,
                        &name,
                        &top,
                        up,
                        rustix::fs::RenameFlags::NOREPLACE,
                    ) {
                        // Somebody has called a file so.
                        Err(Errno::EXIST) => {}
                        other => break other?,
                    }
                }
            }
            rustix::fs::unlinkat(&top, &name, AtFlags::REMOVEDIR)?;
        }
    }
}

/// Removes a file, or a folder with nothing in it. `false`: there is something in it.
fn removed(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return Ok(other.map(|()| true)?),
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        other => Ok(other.map(|()| true)?),
    }
}

fn folder(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<std::os::fd::OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

/// What is in a folder.
pub(super) fn names(folder: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_tree_of_any_depth_goes_and_what_its_links_lead_to_stays() {
        let outside = tempfile::tempdir().expect("a folder");
        let kept = outside.path().join("kept");
        std::fs::create_dir(&kept).expect("made");
        std::fs::write(kept.join("file"), "x").expect("written");
        let top = std::fs::File::open(outside.path()).expect("opened");
        rustix::fs::mkdirat(&top, "tree", Mode::RWXU).expect("made");
        // Deeper than a path can say, and than there are files to be opened.
        let mut inner = folder(top.as_fd(), c"tree").expect("opened");
        for _ in 0..5_000 {
            rustix::fs::mkdirat(&inner, "d", Mode::RWXU).expect("made");
            rustix::fs::symlinkat(&kept, &inner, ".removed-2").expect("made");
            inner = folder(inner.as_fd(), c"d").expect("opened");
        }
        drop(inner);
        tree(top.as_fd(), c"tree").expect("removed");
        let left = names(top.as_fd()).expect("read");
        assert_eq!(left, [c"kept".to_owned()]);
        assert_eq!(std::fs::read_to_string(kept.join("file")).expect("read"), "x");
        tree(top.as_fd(), c"nothing").expect_err("it is not there");
    }
}
