//! What can be wrong with the settings, or with the machine.

use crate::limits;

/// Why discovery could not start. Nothing was announced and nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The id is not one.
    #[error("{0:?} is not a node's id: it has {digits} hex digits", digits = limits::NODE_DIGITS)]
    BadNode(String),
    /// The hash is not one.
    #[error(
        "{0:?} is not the hash of a fabric's key: it has {digits} hex digits",
        digits = limits::FABRIC_DIGITS
    )]
    BadFabric(String),
    /// Nobody could connect there.
    #[error("port 0 cannot be announced: pass the port that the agent is bound to")]
    BadPort,
    /// The domain cannot be asked for.
    #[error("{0:?} is not a domain to browse: write it like \"rack1.example.org\"")]
    BadDomain(String),
    /// Too many domains.
    #[error("{0} domains to browse are too many: at most {max}", max = limits::DOMAINS_MAX)]
    TooManyDomains(usize),
    /// The seed has no such form.
    #[error(
        "{0:?} is not a seed: write \"host:port\", \"192.0.2.1:port\" or \"[2001:db8::1]:port\""
    )]
    BadSeed(String),
    /// Too many seeds.
    #[error("{0} seeds are too many: at most {max}; other nodes tell about the rest", max = limits::SEEDS_MAX)]
    TooManySeeds(usize),
    /// The multicast daemon could not start.
    #[error(
        "multicast discovery cannot start: {0}; switch it off if this machine has no use for it"
    )]
    Mdns(#[from] mdns_sd::Error),
}
