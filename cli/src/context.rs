//! Which agent is meant: the one of this machine, or one that `ssh` leads to; and `weft context`, which keeps such ways.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::exit::{Exit, Failure};
use crate::screen::{Cell, Table, Tone};
use crate::{Context, text};

/// The agent's socket, unless something else is said.
const SOCKET: &str = "/run/weft/weft.sock";
/// The name of the agent of this machine, which needs no entry.
pub const HERE: &str = "here";
/// Characters of a context's name.
const NAME_CHARS_MAX: usize = 63;
/// Bytes of the file of contexts that are read: thousands of them.
const FILE_BYTES_MAX: usize = 1 << 20;

/// A machine that `ssh` leads to, whose agent is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Host {
    user: Option<String>,
    host: String,
    port: Option<u16>,
}

impl Host {
    /// What `ssh` is started with: everything that stands before the command to run there.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["-T".to_owned()];
        if let Some(port) = self.port {
            arguments.extend(["-p".to_owned(), port.to_string()]);
        }
        let place = match &self.user {
            Some(user) => format!("{user}@{}", self.host),
            None => self.host.clone(),
        };
        arguments.extend(["--".to_owned(), place]);
        arguments
    }
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?}: write ssh://[USER@]HOST[:PORT], as in ssh://root@pine");
        let rest = text.strip_prefix("ssh://").ok_or_else(wrong)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, rest),
        };
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
                (
                    host,
                    if rest.is_empty() {
                        None
                    } else {
                        rest.strip_prefix(':').map(Some).ok_or_else(wrong)?
                    },
                )
            }
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let port = port.map(|port| port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong));
        // `ssh` takes what begins with a dash for an option, and a shell may see the rest.
        let plain = |word: &str, more: &str| {
            !word.is_empty()
                && !word.starts_with('-')
                && word.chars().all(|char| char.is_alphanumeric() || more.contains(char))
        };
        match plain(host, "-_.:%") && user.is_none_or(|user| plain(user, "-_.+")) {
            true => Ok(Self {
                user: user.map(str::to_owned),
                host: host.to_owned(),
                port: port.transpose()?,
            }),
            false => Err(wrong()),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.host)?,
            false => f.write_str(&self.host)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl TryFrom<String> for Host {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.to_string()
    }
}

/// The way to an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    Socket(PathBuf),
    Host(Host),
}

impl Way {
    /// What marks the node whose agent is asked, in a list.
    pub fn mark(&self) -> &'static str {
        match self {
            Way::Socket(_) => "here",
            Way::Host(_) => "asked",
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Socket(path) => path.display().fmt(f),
            Way::Host(host) => host.fmt(f),
        }
    }
}

/// Options first, then variables, then the context in use, then the agent of this machine.
pub fn way(socket: Option<PathBuf>, host: Option<Host>) -> Result<Way, Failure> {
    if let Some(socket) = socket {
        return Ok(Way::Socket(socket));
    }
    if let Some(host) = host {
        return Ok(Way::Host(host));
    }
    if let Some(socket) = variable("WEFT_SOCKET") {
        return Ok(Way::Socket(socket.into()));
    }
    if let Some(host) = variable("WEFT_HOST") {
        let host = host.to_string_lossy().parse();
        return host.map(Way::Host).map_err(|error| Failure::usage(format!("WEFT_HOST: {error}")));
    }
    let mut kept = Kept::read()?;
    Ok(match kept.current.and_then(|name| kept.contexts.remove(&name)) {
        Some(host) => Way::Host(host),
        None => Way::Socket(SOCKET.into()),
    })
}

/// The socket of the agent of this machine, if that one is meant: whoever must not wait asks no other.
pub fn local_socket() -> Option<PathBuf> {
    match way(None, None) {
        Ok(Way::Socket(socket)) => Some(socket),
        Ok(Way::Host(_)) | Err(_) => None,
    }
}

fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// What is in the file.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Kept {
    /// The one in use; none: the agent of this machine.
    current: Option<String>,
    contexts: BTreeMap<String, Host>,
}

impl Kept {
    fn path() -> Result<PathBuf, Failure> {
        let home = || variable("HOME").map(|home| PathBuf::from(home).join(".config"));
        let folder = variable("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home);
        let folder = folder.filter(|folder| folder.is_absolute()).ok_or_else(|| {
            Failure::failed("contexts have no place: set HOME or XDG_CONFIG_HOME")
        })?;
        Ok(folder.join("weft/contexts.toml"))
    }

    /// What is kept; nothing where there is no file.
    fn read() -> Result<Self, Failure> {
        let Ok(path) = Self::path() else { return Ok(Self::default()) };
        let shown = path.display();
        match std::fs::File::open(&path) {
            Ok(file) => {
                let text = text::read(file, FILE_BYTES_MAX, "a file of contexts");
                let text = text.map_err(|reason| Failure::usage(format!("{shown}: {reason}")))?;
                toml::from_str(&text).map_err(|error| {
                    let message = error.message().to_owned();
                    Failure::usage(format!(
                        "{shown} makes no sense: {message}. Mend it, or remove it"
                    ))
                })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            // Of no use to whoever may not read it.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                Ok(Self::default())
            }
            Err(error) => Err(Failure::failed(format!("{shown}: {error}"))),
        }
    }

    /// Writes it beside the old one first, so that it is there whole or not at all.
    fn write(&self) -> Result<(), Failure> {
        let path = Self::path()?;
        let refused =
            |error: std::io::Error| Failure::failed(format!("{}: {error}", path.display()));
        let folder = path.parent().unwrap_or(&path);
        std::fs::create_dir_all(folder).map_err(refused)?;
        let draft = path.with_extension("toml.new");
        std::fs::write(&draft, self.text()).map_err(refused)?;
        std::fs::rename(&draft, &path).map_err(refused)
    }

    /// Names and hosts have no characters that mean anything in TOML.
    fn text(&self) -> String {
        let mut text = "# Written by `weft context`.\n".to_owned();
        if let Some(current) = &self.current {
            text.push_str(&format!("current = \"{current}\"\n"));
        }
        text.push_str("\n[contexts]\n");
        for (name, host) in &self.contexts {
            text.push_str(&format!("{name} = \"{host}\"\n"));
        }
        text
    }

    fn known(&self, name: &str) -> Result<(), Failure> {
        if self.contexts.contains_key(name) {
            return Ok(());
        }
        let names = self.contexts.keys().map(String::as_str).chain([HERE]);
        let hint = match fabric::job::nearest(name, names) {
            Some(near) => format!("did you mean {near}?"),
            None => "weft context list shows those that there are, weft context add NAME ssh://HOST makes one".into(),
        };
        Err(Failure::not_found(format!("there is no context {name:?}: {hint}")))
    }
}

/// A context's name.
pub fn name(text: &str) -> Result<String, String> {
    // What begins with a dash is taken for an option wherever it is written.
    let fine = (1..=NAME_CHARS_MAX).contains(&text.len())
        && !text.starts_with('-')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    match fine {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "use 1 to {NAME_CHARS_MAX} letters, digits, '-' and '_', and no '-' as the first"
        )),
    }
}

#[derive(Serialize)]
struct View<'k> {
    name: &'k str,
    /// `null`: the agent of this machine.
    host: Option<&'k Host>,
    current: bool,
}

/// Lists them.
pub fn list(context: &Context) -> Result<Exit, Failure> {
    let kept = Kept::read()?;
    let in_use = kept.current.as_deref().filter(|name| kept.contexts.contains_key(*name));
    let here = View { name: HERE, host: None, current: in_use.is_none() };
    let others = kept.contexts.iter().map(|(name, host)| View {
        name,
        host: Some(host),
        current: in_use == Some(name.as_str()),
    });
    let views: Vec<View<'_>> = std::iter::once(here).chain(others).collect();
    if context.screen.is_json() {
        context.screen.json(&views)?;
        return Ok(Exit::Ok);
    }
    if context.screen.names(views.iter().map(|view| view.name))? {
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["NAME", "AGENT", "IN USE"]);
    for view in &views {
        table.row([
            view.name.into(),
            view.host.map_or("of this machine".to_owned(), ToString::to_string).into(),
            if view.current { Cell::new("yes", Tone::Good) } else { Cell::default() },
        ]);
    }
    context.screen.table(&table)?;
    Ok(Exit::Ok)
}

/// Keeps one, under a name that is free.
pub fn add(context: &Context, name: String, host: Host) -> Result<Exit, Failure> {
    let mut kept = Kept::read()?;
    if name == HERE {
        return Err(Failure::failed(
            "here is the agent of this machine, and needs no entry: choose another name",
        ));
    }
    if kept.contexts.contains_key(&name) {
        return Err(Failure::failed(format!(
            "there is a context {name} already: choose another name, or weft context remove {name}"
        )));
    }
    kept.contexts.insert(name.clone(), host);
    kept.write()?;
    context.screen.say(&format!("{name} is kept; from now on: weft context use {name}"));
    Ok(Exit::Ok)
}

/// Makes one the one that is asked when nothing else is said.
pub fn switch(context: &Context, name: String) -> Result<Exit, Failure> {
    let mut kept = Kept::read()?;
    if name == HERE {
        kept.current = None;
        kept.write()?;
        context.screen.say("weft asks the agent of this machine");
        return Ok(Exit::Ok);
    }
    kept.known(&name)?;
    context.screen.say(&format!("weft asks the agent of {}", kept.contexts[&name]));
    kept.current = Some(name);
    kept.write()?;
    Ok(Exit::Ok)
}

/// Forgets one.
pub fn remove(context: &Context, name: String) -> Result<Exit, Failure> {
    let mut kept = Kept::read()?;
    if name == HERE {
        return Err(Failure::failed(
            "here is the agent of this machine: it needs no entry, and has none",
        ));
    }
    kept.known(&name)?;
    kept.contexts.remove(&name);
    if kept.current.as_ref() == Some(&name) {
        kept.current = None;
        context.screen.say("weft asks the agent of this machine");
    }
    kept.write()?;
    context.screen.say(&format!("{name} is forgotten"));
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests;
