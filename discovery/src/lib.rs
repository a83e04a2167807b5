//! Finds the other nodes of a fabric by DNS-SD, and lets them find this one.
//!
//! Three sources, all under the service `_weft._udp`: multicast DNS for the links of this machine,
//! unicast DNS-SD for domains, and static seeds. Nothing that they say is proven: who answers at an
//! address is decided by its key, in the agent's handshake.
//!
//! At rest nothing polls: the kernel tells about changes of the network, records are asked for when
//! they are about to expire, and every ten seconds the size of the multicast cache is looked at.
//!
//! ```no_run
//! # async fn example() -> Result<(), discovery::Error> {
//! let settings = discovery::Settings {
//!     machine: "board1".into(),
//!     node: "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff".into(),
//!     fabric: None,
//!     port: 7676,
//!     mdns: true,
//!     ..Default::default()
//! };
//! let mut discovery = discovery::Discovery::start(settings)?;
//! match discovery.next().await {
//!     discovery::Event::Found(found) => println!("try {:?}", found.addresses),
//!     discovery::Event::Lost(lost) => println!("{} is not announced any more", lost.name),
//! }
//! discovery.shutdown().await;
//! # Ok(()) }
//! ```
#![deny(unsafe_code)]

mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod interfaces;
mod inventory;
mod known;
pub mod limits;
mod link;
mod mdns;
pub mod name;
pub mod news;
mod seed;
mod sighting;
pub mod txt;
mod unicast;
mod update;

pub use error::Error;
pub use interfaces::Interfaces;
pub use inventory::{Link, LinkKind, links};
pub use link::{LinkWatcher, usable_addresses};
pub use sighting::{Event, Found, Lost, Relation, Source};

use known::{Known, Mark, Scope};
use mdns::{Announcement, Mdns, Report};
use seed::Seed;
use std::collections::VecDeque;
use std::future::pending;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use update::Update;

/// What to announce, and where to look.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The machine's host name. Any text: it is only for people.
    pub machine: String,
    /// This node's id: 64 hex digits.
    pub node: String,
    /// Hash of the fabric's key: 16 hex digits. `None` while the node waits to join.
    pub fabric: Option<String>,
    /// The UDP port at which the agent listens on all its addresses.
    pub port: u16,
    /// Announce and browse by multicast.
    pub mdns: bool,
    /// Which interfaces take part in that.
    pub interfaces: Interfaces,
    /// Domains to browse by unicast, like `rack1.example.org`. At most
    /// [`DOMAINS_MAX`](limits::DOMAINS_MAX).
    pub domains: Vec<String>,
    /// Where to look in any case: `host:port`, `192.0.2.1:port`, `[2001:db8::1]:port`. At most
    /// [`SEEDS_MAX`](limits::SEEDS_MAX).
    pub seeds: Vec<String>,
}

/// The announcement of this node and the search for others. Both end when it is dropped;
/// [`Discovery::shutdown`] says goodbye properly.
pub struct Discovery {
    known: Known,
    /// When the link was asked for everyone anew, until they have answered.
    asked_anew: Option<Mark>,
    mdns: Option<Mdns>,
    updates: mpsc::Receiver<Update>,
    /// One task for each domain and each seed. Aborted on drop.
    _lookups: JoinSet<()>,
    events: VecDeque<Event>,
}

impl Discovery {
    /// Starts to announce and to search. Call it within a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// Settings that make no sense, or a machine that cannot do multicast at all. Nothing is left
    /// running then.
    pub fn start(settings: Settings) -> Result<Self, Error> {
        let Settings { machine, node, fabric, port, mdns, interfaces, domains, seeds } = settings;
        let node = txt::hex(node.as_bytes(), limits::NODE_DIGITS).ok_or(Error::BadNode(node))?;
        let fabric = checked_fabric(fabric)?;
        if port == 0 {
            return Err(Error::BadPort);
        }
        if domains.len() > limits::DOMAINS_MAX {
            return Err(Error::TooManyDomains(domains.len()));
        }
        if seeds.len() > limits::SEEDS_MAX {
            return Err(Error::TooManySeeds(seeds.len()));
        }
        let services = domains
            .into_iter()
            .map(|domain| Ok((unicast::service_of(&domain)?, domain)))
            .collect::<Result<Vec<_>, Error>>()?;
        let seeds = seeds.iter().map(|text| Seed::parse(text)).collect::<Result<Vec<_>, _>>()?;

        let known = Known::new(node.clone(), fabric.clone());
        let announcement = Announcement { machine, node, fabric, port };
        let mdns = mdns.then(|| Mdns::start(announcement, interfaces)).transpose()?;
        let (sender, updates) = mpsc::channel(limits::UPDATES_MAX);
        let mut lookups = JoinSet::new();
        for (service, domain) in services {
            lookups.spawn(unicast::browse(domain, service, sender.clone()));
        }
        for seed in seeds {
            lookups.spawn(seed::follow(seed, sender.clone()));
        }
        let events = VecDeque::new();
        Ok(Self { known, asked_anew: None, mdns, updates, _lookups: lookups, events })
    }

    /// Waits for the next change. Can be cancelled at any time without losing one.
    ///
    /// A [`Found`] is repeated only when it changes: remember it as long as it is not [`Lost`].
    /// Nodes of other fabrics are not reported once this node belongs to one; while it waits to
    /// join, everyone is, with its fabric.
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            tokio::select! {
                Some(update) = self.updates.recv() => {
                    self.events.extend(self.known.replace(&update.scope, update.found));
                }
                report = next_report(self.mdns.as_mut()) => self.heard(report),
            }
        }
    }

    /// This node belongs to `fabric` now: 16 hex digits, `None` when it left. Announces that at once,
    /// and reports who is of interest now and who no more.
    ///
    /// # Errors
    /// The hash is not one. Nothing changed.
    pub fn set_fabric(&mut self, fabric: Option<String>) -> Result<(), Error> {
        let fabric = checked_fabric(fabric)?;
        self.events.extend(self.known.set_fabric(fabric.clone()));
        if let Some(mdns) = &mut self.mdns {
            mdns.set_fabric(fabric);
        }
        Ok(())
    }

    /// Tells the links that this node goes, and stops. Takes 0.2 s, with a broken network 2 s at most.
    pub async fn shutdown(self) {
        if let Some(mdns) = self.mdns {
            mdns.shutdown().await;
        }
    }

    fn heard(&mut self, report: Report) {
        let link: Scope = (Source::Mdns, String::new());
        match report {
            Report::Seen(found) => self.events.extend(self.known.see(&link, found)),
            Report::Gone(name) => self.events.extend(self.known.gone(&link, &name)),
            Report::AskedAnew => self.asked_anew = Some(self.known.mark()),
            Report::Answered => {
                if let Some(mark) = self.asked_anew.take() {
                    self.events.extend(self.known.forget_unheard(&link, mark));
                }
            }
            Report::Restarted => self.events.extend(self.known.replace(&link, Vec::new())),
        }
    }
}

async fn next_report(mdns: Option<&mut Mdns>) -> Report {
    match mdns {
        Some(mdns) => mdns.next().await,
        None => pending().await,
    }
}

fn checked_fabric(fabric: Option<String>) -> Result<Option<String>, Error> {
    let Some(fabric) = fabric else { return Ok(None) };
    match txt::hex(fabric.as_bytes(), limits::FABRIC_DIGITS) {
        Some(digits) => Ok(Some(digits)),
        None => Err(Error::BadFabric(fabric)),
    }
}
