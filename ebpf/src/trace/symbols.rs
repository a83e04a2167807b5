//! Names of addresses: of the kernel from `/proc/kallsyms`, of programs from the symbol tables of the files that they
//! have mapped.

mod elf;

use crate::limits::SYMBOL_FILE_BYTES_MAX;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;

/// What has been looked up for one report. Processes that have ended meanwhile have no names any more.
#[derive(Default)]
pub(super) struct Symbols {
    kernel: Option<Names>,
    processes: BTreeMap<u32, Vec<Mapping>>,
    /// By device and inode: many processes map the same files.
    files: BTreeMap<(String, u64), Rc<File>>,
}

/// Names by where they begin.
type Names = BTreeMap<u64, String>;

/// A part of a file in a process's memory.
struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
    file: Rc<File>,
}

struct File {
    /// Without its folder.
    name: String,
    /// By offset in the file.
    names: Names,
}

impl Symbols {
    /// The function of the kernel that this address is in.
    pub(super) fn of_kernel(&mut self, address: u64) -> String {
        let names = self.kernel.get_or_insert_with(|| {
            kernel_names(&fs::read_to_string("/proc/kallsyms").unwrap_or_default())
        });
        name_at(names, address).unwrap_or("[unknown]").to_owned()
    }

    /// The function of a program that this address is in, or the file.
    pub(super) fn of_program(&mut self, process: u32, address: u64) -> String {
        if !self.processes.contains_key(&process) {
            let mappings = self.map(process);
            self.processes.insert(process, mappings);
        }
        let mappings = &self.processes[&process];
        let Some(mapping) = mappings.iter().find(|map| (map.start..map.end).contains(&address))
        else {
            return "[unknown]".into();
        };
        match name_at(&mapping.file.names, address - mapping.start + mapping.offset) {
            Some(name) => name.to_owned(),
            None => format!("[{}]", mapping.file.name),
        }
    }

    /// What `/proc/PID/maps` says is executable and from a file (proc(5)).
    fn map(&mut self, process: u32) -> Vec<Mapping> {
        let text = fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default();
        let mut mappings = Vec::new();
        for line in text.lines() {
            let Some((start, end, offset, identity, path)) = executable(line) else { continue };
            let file = self.files.entry(identity).or_insert_with(|| {
                // As the process sees it, which may be in a container.
                let inside: PathBuf = format!("/proc/{process}/root{path}").into();
                let small =
                    fs::metadata(&inside).is_ok_and(|file| file.len() <= SYMBOL_FILE_BYTES_MAX);
                let bytes = small.then(|| fs::read(&inside).ok()).flatten().unwrap_or_default();
                let name = path.rsplit('/').next().unwrap_or(&path).to_owned();
                Rc::new(File { name, names: elf::functions(&bytes).unwrap_or_default() })
            });
            mappings.push(Mapping { start, end, offset, file: Rc::clone(file) });
        }
        mappings
    }
}

/// Start, end, offset, device and inode, path, of a line like
/// `7f00-7f80 r-xp 00001000 08:01 1234   /usr/lib/libc.so.6`.
type Executable = (u64, u64, u64, (String, u64), String);

fn executable(line: &str) -> Option<Executable> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let rights = fields.next()?;
    let hexadecimal = |text| u64::from_str_radix(text, 16).ok();
    let offset = hexadecimal(fields.next()?)?;
    let (device, inode) = (fields.next()?, fields.next()?);
    let path = &line[line.find('/')?..];
    let identity = (device.to_owned(), inode.parse().ok()?);
    rights.contains('x').then(|| {
        Some((hexadecimal(start)?, hexadecimal(end)?, offset, identity, path.to_owned()))
    })?
}

/// From lines like `ffffffff81000000 T _text [module]`. All zero if this process may not know.
fn kernel_names(text: &str) -> Names {
    let name = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let address = u64::from_str_radix(fields.next()?, 16).ok()?;
        let kind = fields.next()?;
        let function = matches!(kind, "t" | "T" | "w" | "W");
        (function && address != 0).then(|| Some((address, fields.next()?.to_owned())))?
    };
    text.lines().filter_map(name).collect()
}

fn name_at(names: &Names, address: u64) -> Option<&str> {
    names.range(..=address).next_back().map(|(_, name)| name.as_str())
}

#[cfg(test)]
mod tests;
