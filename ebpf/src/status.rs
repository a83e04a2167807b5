//! What became of a probe.

use std::fmt;

/// What became of a probe. There is no zero for what is not measured: a probe that does not run has no rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Its hooks are in place.
    Running,
    /// The configuration does not ask for it.
    Off,
    /// This machine cannot: a hook, a mount or a privilege is missing. The text says which.
    Unsupported(String),
    /// It should have worked: the text is what the kernel said.
    Failed(String),
}

impl Status {
    /// From an error of libbpf while `what` was done. A missing permission is no failure.
    pub(crate) fn refused(what: &str, error: &libbpf_rs::Error, said: &str) -> Self {
        let text = match said.trim() {
            "" => format!("{what}: {error}"),
            said => format!("{what}: {error}: {said}"),
        };
        match error.kind() {
            libbpf_rs::ErrorKind::PermissionDenied => Self::Unsupported(text),
            _ => Self::Failed(text),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => write!(f, "running"),
            Self::Off => write!(f, "off"),
            Self::Unsupported(reason) => write!(f, "unsupported: {reason}"),
            Self::Failed(reason) => write!(f, "failed: {reason}"),
        }
    }
}
