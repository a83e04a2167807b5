//! One object of programs, loaded and attached.

use crate::limits::SAID_MAX;
use crate::status::Status;
use libbpf_rs::{
    Link, MapCore, MapHandle, Object, ObjectBuilder, OpenObject, PrintLevel, ProgramInput,
    ProgramMut, set_print,
};
use std::ffi::OsStr;
use std::sync::Mutex;

/// The bytes of a compiled program, aligned as the structures of an ELF file are.
#[repr(C, align(8))]
pub(crate) struct Aligned<T: ?Sized>(pub(crate) T);

/// The compiled programs of the probe of this name.
macro_rules! object {
    ($probe:literal) => {{
        static OBJECT: &$crate::hooks::Aligned<[u8]> = &$crate::hooks::Aligned(*include_bytes!(
            concat!(env!("OUT_DIR"), "/", $probe, ".bpf.o")
        ));
        &OBJECT.0
    }};
}
pub(crate) use object;

/// What libbpf says goes here while something is loaded. One at a time: it is one callback for the process.
static SAID: Mutex<String> = Mutex::new(String::new());
static LOADING: Mutex<()> = Mutex::new(());

/// Programs in the kernel, and what holds them at their hooks. Dropping it takes them out.
pub(crate) struct Hooks {
    object: Object,
    links: Vec<Link>,
}

impl Hooks {
    /// Loads the programs named in `programs` and no others, with these sizes of tables.
    pub(crate) fn load(
        bytes: &[u8],
        programs: &[&str],
        sizes: &[(&str, u32)],
    ) -> Result<Self, Status> {
        let guard = LOADING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        listen();
        let loaded = ObjectBuilder::default()
            .open_memory(bytes)
            .and_then(|mut object| {
                select(&mut object, programs, sizes)?;
                object.load()
            })
            .map_err(|error| Status::refused("loading", &error, &said()));
        drop(guard);
        Ok(Self { object: loaded?, links: Vec::new() })
    }

    /// Puts these programs at the hooks that their sections name.
    pub(crate) fn attach(&mut self, programs: &[&str]) -> Result<(), Status> {
        for name in programs {
            let link = self.attach_with(name, |program| program.attach())?;
            self.links.push(link);
        }
        Ok(())
    }

    /// Puts a program where `how` says, and keeps it there.
    pub(crate) fn attach_as(
        &mut self,
        name: &str,
        how: impl FnOnce(&ProgramMut<'_>) -> libbpf_rs::Result<Link>,
    ) -> Result<(), Status> {
        let link = self.attach_with(name, how)?;
        self.links.push(link);
        Ok(())
    }

    /// As [`attach_as`](Self::attach_as), but the caller keeps what holds it.
    pub(crate) fn attach_with(
        &self,
        name: &str,
        how: impl FnOnce(&ProgramMut<'_>) -> libbpf_rs::Result<Link>,
    ) -> Result<Link, Status> {
        let guard = LOADING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        listen();
        let link = self
            .program(name)
            .and_then(|program| how(&program))
            .map_err(|error| Status::refused(&format!("attaching {name}"), &error, &said()));
        drop(guard);
        link
    }

    /// Runs a program once on every CPU. One that is not online is left out.
    pub(crate) fn run_on_every_cpu(&self, name: &str) {
        let Ok(program) = self.program(name) else { return };
        for cpu in 0..crate::kernel::possible_cpus() {
            let input = ProgramInput {
                cpu: cpu as u32,
                flags: libbpf_sys::BPF_F_TEST_RUN_ON_CPU,
                ..Default::default()
            };
            let _offline = program.test_run(input);
        }
    }

    /// The table of this name.
    pub(crate) fn map(&self, name: &str) -> Result<MapHandle, Status> {
        self.object
            .maps()
            .find(|map| map.name() == OsStr::new(name))
            .ok_or_else(|| missing("table", name))
            .and_then(|map| MapHandle::try_from(&map))
            .map_err(|error| Status::refused(name, &error, ""))
    }

    /// Every program that is loaded.
    pub(crate) fn programs(&self) -> impl Iterator<Item = ProgramMut<'_>> {
        self.object.progs_mut().filter(|program| program.autoload())
    }

    fn program(&self, name: &str) -> libbpf_rs::Result<ProgramMut<'_>> {
        self.programs()
            .find(|program| program.name() == OsStr::new(name))
            .ok_or_else(|| missing("program", name))
    }
}

fn select(
    object: &mut OpenObject,
    programs: &[&str],
    sizes: &[(&str, u32)],
) -> libbpf_rs::Result<()> {
    for mut program in object.progs_mut() {
        let wanted = programs.iter().any(|name| program.name() == OsStr::new(name));
        program.set_autoload(wanted);
    }
    for mut map in object.maps_mut() {
        if let Some((_, entries)) = sizes.iter().find(|(name, _)| map.name() == OsStr::new(name)) {
            map.set_max_entries(*entries)?;
        }
    }
    Ok(())
}

fn missing(what: &str, name: &str) -> libbpf_rs::Error {
    std::io::Error::new(std::io::ErrorKind::NotFound, format!("no {what} '{name}' in the object"))
        .into()
}

fn listen() {
    SAID.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clear();
    set_print(Some((PrintLevel::Warn, |_, text| {
        let mut said = SAID.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        said.push_str(&text);
        if said.len() > SAID_MAX {
            let cut = said.ceil_char_boundary(said.len() - SAID_MAX);
            said.drain(..cut);
        }
    })));
}

fn said() -> String {
    let said = SAID.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    // The cause comes first, and the verifier's account of it line by line.
    said.lines().map(|line| line.trim_start_matches("libbpf: ")).collect::<Vec<_>>().join("; ")
}
