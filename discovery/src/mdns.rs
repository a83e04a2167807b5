//! Announces this node on its links and browses for others, by multicast DNS (RFC 6762).
//!
//! The `mdns-sd` crate speaks the protocol, in a thread of its own. It shares port 5353 with Avahi
//! and resolved (`SO_REUSEADDR`, `SO_REUSEPORT`; every multicast datagram reaches all of them). Left
//! alone it polls the interfaces every five seconds and asks less and less often, so that a link
//! which comes up late is slow to join. Here the polling is off: the kernel says when something
//! changed, and then everything is announced and asked for again at once.
//!
//! What mdns-sd remembers has no bound of its own. It is measured now and then, and the daemon is
//! thrown away and started again when it holds more than any honest link would make it.

use mdns_sd::{
    IfKind, IfPredicate, Metrics, Receiver, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent,
    ServiceInfo, TxtProperty,
};
use std::collections::{BTreeSet, VecDeque};
use std::future::pending;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::interfaces::Interfaces;
use crate::limits;
use crate::link::{LinkWatcher, usable_addresses};
use crate::name;
use crate::sighting::{Found, Source, tidy};
use crate::txt::Hint;

/// What is announced.
#[derive(Clone, Debug)]
pub(crate) struct Announcement {
    /// The machine's name.
    pub(crate) machine: String,
    /// 64 hex digits.
    pub(crate) node: String,
    /// 16 hex digits, `None` while the node waits to join.
    pub(crate) fabric: Option<String>,
    /// Where the agent listens, on all addresses.
    pub(crate) port: u16,
}

/// What happened on the link.
#[derive(Debug)]
pub(crate) enum Report {
    /// An instance was resolved, perhaps not for the first time.
    Seen(Found),
    /// The instance of this name said goodbye or was not heard of for too long.
    Gone(String),
    /// The daemon has forgotten everyone and asks anew: an instance that goes now is not [`Gone`](Self::Gone).
    AskedAnew,
    /// Whoever is there has been seen since the last [`AskedAnew`](Self::AskedAnew).
    Answered,
    /// Nothing that was said before holds any more: the daemon has started anew.
    Restarted,
}

/// The announcement and the search, on every link that takes part.
pub(crate) struct Mdns {
    announcement: Announcement,
    interfaces: Interfaces,
    /// `None` while it waits to be started again.
    daemon: Option<ServiceDaemon>,
    events: Option<Receiver<ServiceEvent>>,
    /// The events of the search before this one, until the new one has begun.
    events_before: Option<Receiver<ServiceEvent>>,
    /// Instances found since the last search, and so at least as many as there are.
    found: usize,
    /// An instance came without its text: ask for everything anew.
    ask_anew: bool,
    /// The daemon was told to forget everyone, and the search after that has not begun yet.
    forgets: bool,
    /// How often that was done since the network changed or the link was searched by the clock.
    asked_anew: u32,
    metrics: Option<Receiver<Metrics>>,
    watcher: Option<LinkWatcher>,
    addresses: BTreeSet<(String, u32, IpAddr)>,
    timers: Timers,
    /// The setting that is flipped to make the daemon look at the interfaces. It means nothing here.
    flipped: bool,
    /// What was taken out of the search before this one: as much as its channel held.
    reports: VecDeque<Report>,
    reports_this_turn: u32,
}

/// When to do what next.
#[derive(Debug)]
struct Timers {
    /// Look at the network: it has changed.
    settle: Option<Instant>,
    /// Not later than this.
    settle_latest: Option<Instant>,
    /// End the daemon's own polling.
    end_polling: Option<Instant>,
    /// Start the daemon again.
    restart: Option<Instant>,
    /// Whoever was asked anew has answered.
    answered: Option<Instant>,
    /// Search again.
    search: Instant,
    /// Measure the cache.
    check: Instant,
}

impl Mdns {
    /// Starts to announce and to search. Needs a runtime with I/O and time.
    pub(crate) fn start(
        announcement: Announcement,
        interfaces: Interfaces,
    ) -> Result<Self, mdns_sd::Error> {
        let watcher = LinkWatcher::open()
            .inspect_err(|error| {
                tracing::warn!(%error, "cannot hear of network changes: looking every 5 s instead");
            })
            .ok();
        let now = Instant::now();
        let timers = Timers {
            settle: None,
            settle_latest: None,
            end_polling: None,
            restart: None,
            answered: None,
            search: now + limits::SECOND_SEARCH,
            check: now + limits::CACHE_CHECK,
        };
        let addresses = usable_addresses(&interfaces);
        let mut mdns = Self {
            announcement,
            interfaces,
            daemon: None,
            events: None,
            events_before: None,
            found: 0,
            ask_anew: false,
            forgets: false,
            asked_anew: 0,
            metrics: None,
            watcher,
            addresses,
            timers,
            flipped: false,
            reports: VecDeque::new(),
            reports_this_turn: 0,
        };
        mdns.start_daemon()?;
        Ok(mdns)
    }

    /// Waits for the next report. Can be cancelled at any time.
    pub(crate) async fn next(&mut self) -> Report {
        // A flood of events must not keep the agent's other tasks waiting.
        self.reports_this_turn += 1;
        if self.reports_this_turn > limits::EVENTS_PER_TURN_MAX {
            tokio::task::yield_now().await;
            self.reports_this_turn = 0;
        }
        loop {
            if let Some(report) = self.reports.pop_front() {
                return report;
            }
            let wake = self.timers.next();
            tokio::select! {
                biased;
                () = sleep_until(wake) => {
                    if let Some(report) = self.at_deadline() {
                        return report;
                    }
                }
                changed = network_changed(self.watcher.as_ref()) => self.network_changed(changed),
                metrics = receive(self.metrics.as_ref()) => self.measured(metrics),
                event = receive(self.events.as_ref()) => {
                    if let Some(report) = self.event(event) {
                        return report;
                    }
                }
            }
        }
    }

    /// Announces that this node belongs to `fabric` now.
    pub(crate) fn set_fabric(&mut self, fabric: Option<String>) {
        self.announcement.fabric = fabric;
        self.announce();
    }

    /// Says goodbye, twice as mdns-sd does, and ends the daemon's thread.
    pub(crate) async fn shutdown(mut self) {
        let Some(daemon) = self.daemon.take() else { return };
        if let Ok(answer) = daemon.unregister(&full_name(&self.announcement)) {
            let _ = timeout(limits::SHUTDOWN_STEP_MAX, answer.recv_async()).await;
            sleep(limits::GOODBYE_REPEAT).await;
        }
        if let Ok(answer) = daemon.shutdown() {
            let _ = timeout(limits::SHUTDOWN_STEP_MAX, answer.recv_async()).await;
        }
    }

    fn start_daemon(&mut self) -> Result<(), mdns_sd::Error> {
        let info = service_info(&self.announcement)?;
        let daemon = ServiceDaemon::new()?;
        let interfaces = self.interfaces.clone();
        let left_out = IfPredicate::new(move |interface| {
            !interfaces.allows(&interface.name, interface.is_loopback())
        });
        daemon.disable_interface(IfKind::Predicate(left_out))?;
        if self.watcher.is_some() {
            daemon.set_ip_check_interval(0)?;
        }
        self.events = Some(daemon.browse(name::SERVICE_LOCAL)?);
        daemon.register(info)?;
        self.events_before = None;
        self.found = 0;
        self.forgets = false;
        self.timers.answered = None;
        self.metrics = None;
        self.flipped = false;
        self.ask_anew_soon();
        self.daemon = Some(daemon);
        Ok(())
    }

    fn event(&mut self, event: Option<ServiceEvent>) -> Option<Report> {
        match event {
            Some(ServiceEvent::SearchStarted(_)) => {
                // Nothing more comes from the search before: takes what is left of it.
                self.drain_the_search_before();
                if std::mem::take(&mut self.forgets) {
                    self.timers.answered = Some(Instant::now() + limits::ANSWERS_MAX);
                    self.reports.push_back(Report::AskedAnew);
                }
                None
            }
            Some(ServiceEvent::ServiceFound(..)) => {
                self.found += 1;
                None
            }
            Some(ServiceEvent::ServiceResolved(service)) => {
                if service.txt_properties.is_empty() {
                    self.ask_for_text();
                }
                seen(&service).map(Report::Seen)
            }
            Some(event) => report(event),
            None => {
                // Either more came than the channel holds, or the daemon's thread has ended.
                self.events = None;
                tracing::debug!("the multicast daemon dropped us: starting it again");
                self.restart_later();
                None
            }
        }
    }

    /// A responder leaves out of an answer what it has sent within the last second (RFC 6762,
    /// section 6), and mdns-sd does not ask for a text that was left out. Asks anew when that second
    /// is over. A service may also have no text, so this is not done for ever.
    fn ask_for_text(&mut self) {
        if self.asked_anew < limits::TEXT_REQUESTS_MAX && !self.ask_anew {
            self.ask_anew = true;
            self.timers.search = self.timers.search.min(Instant::now() + limits::TEXT_REQUEST);
        }
    }

    fn drain_the_search_before(&mut self) {
        if let Some(before) = self.events_before.take() {
            let left = std::iter::from_fn(|| before.try_recv().ok());
            self.reports.extend(left.filter_map(report));
        }
    }

    fn network_changed(&mut self, changed: std::io::Result<()>) {
        let now = Instant::now();
        match changed {
            Ok(()) => {
                let latest = *self.timers.settle_latest.get_or_insert(now + limits::LINK_QUIET_MAX);
                self.timers.settle = Some(latest.min(now + limits::LINK_QUIET));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot hear of network changes: looking every 5 s instead");
                self.watcher = None;
                self.command(|daemon| {
                    daemon.set_ip_check_interval(mdns_sd::IP_CHECK_INTERVAL_IN_SECS_DEFAULT)
                });
            }
        }
    }

    fn at_deadline(&mut self) -> Option<Report> {
        let now = Instant::now();
        let due = |timer: &mut Option<Instant>| timer.take_if(|at| *at <= now).is_some();
        if due(&mut self.timers.restart) {
            return self.restart();
        }
        if due(&mut self.timers.settle) {
            self.timers.settle_latest = None;
            self.look_at_the_network();
        }
        if due(&mut self.timers.end_polling) && self.watcher.is_some() {
            self.command(|daemon| daemon.set_ip_check_interval(0));
        }
        if self.timers.search <= now {
            self.timers.search = now + limits::SEARCH_AGAIN;
            if !self.ask_anew {
                self.asked_anew = 0;
            }
            self.search_again();
        }
        if self.timers.check <= now {
            self.timers.check = now + limits::CACHE_CHECK;
            self.check_the_cache();
        }
        due(&mut self.timers.answered).then_some(Report::Answered)
    }

    /// Announces and searches again, if an address came or went.
    fn look_at_the_network(&mut self) {
        let addresses = usable_addresses(&self.interfaces);
        if addresses == self.addresses {
            return;
        }
        tracing::debug!(addresses = addresses.len(), "the network changed: announcing again");
        self.addresses = addresses;
        self.flipped = !self.flipped;
        let flipped = self.flipped;
        // New interfaces are taken in at once, those that are gone only when the daemon polls.
        self.command(|daemon| daemon.include_apple_p2p(flipped));
        self.command(|daemon| daemon.set_ip_check_interval(1));
        self.timers.end_polling = Some(Instant::now() + limits::POLL_AFTER_CHANGE);
        self.announce();
        self.ask_anew = false;
        self.search_again();
        self.ask_anew_soon();
    }

    /// The first answers may lack what the others sent just before we listened.
    fn ask_anew_soon(&mut self) {
        self.ask_anew = true;
        self.asked_anew = 0;
        self.timers.search = Instant::now() + limits::SECOND_SEARCH;
    }

    /// Asks the link again, and the daemon to report all that it has in its cache. It never reports
    /// an instance whose goodbye it heard before it knew it, and which is back within a second.
    fn search_again(&mut self) {
        if self.found > limits::SEARCH_AGAIN_INSTANCES_MAX {
            return;
        }
        self.found = 0;
        self.drain_the_search_before();
        if std::mem::take(&mut self.ask_anew) {
            self.asked_anew += 1;
            self.forgets = true;
            // The daemon forgets what it has, and so does not tell the others that it knows them.
            self.command(|daemon| daemon.stop_browse(name::SERVICE_LOCAL));
        }
        let Some(daemon) = &self.daemon else { return };
        match daemon.browse(name::SERVICE_LOCAL) {
            Ok(events) => self.events_before = self.events.replace(events),
            Err(error) => {
                tracing::debug!(%error, "cannot search again: starting the daemon again");
                self.restart_later();
            }
        }
    }

    fn announce(&mut self) {
        let announcement = self.announcement.clone();
        self.command(move |daemon| daemon.register(service_info(&announcement)?));
    }

    /// Gives the daemon a command. Its queue holds a hundred: when it is full, it does not run.
    fn command(&mut self, command: impl FnOnce(&ServiceDaemon) -> Result<(), mdns_sd::Error>) {
        let Some(daemon) = &self.daemon else { return };
        if let Err(error) = command(daemon) {
            tracing::debug!(%error, "the multicast daemon does not listen: starting it again");
            self.restart_later();
        }
    }

    fn check_the_cache(&mut self) {
        if let Some(metrics) = self.metrics.take() {
            match metrics.try_recv() {
                Ok(metrics) => self.measured(Some(metrics)),
                Err(_) => {
                    tracing::warn!("the multicast daemon does not answer: starting it again");
                    self.restart_later();
                }
            }
            return;
        }
        match self.daemon.as_ref().map(ServiceDaemon::get_metrics) {
            Some(Ok(metrics)) => self.metrics = Some(metrics),
            Some(Err(_)) => self.restart_later(),
            None => {}
        }
    }

    fn measured(&mut self, metrics: Option<Metrics>) {
        self.metrics = None;
        let Some(metrics) = metrics else { return };
        let count = |name: &str| metrics.get(name).copied().unwrap_or(0);
        let cached = [
            "cached-ptr",
            "cached-srv",
            "cached-txt",
            "cached-addr",
            "cached-nsec",
            "cached-subtype",
        ];
        let records: i64 = cached.into_iter().map(count).sum();
        let timers = count("timer");
        tracing::trace!(records, timers, "the multicast cache");
        if records > limits::CACHE_RECORDS_MAX || timers > limits::CACHE_TIMERS_MAX {
            tracing::warn!(
                records,
                timers,
                "the link is flooded with DNS records: forgetting them and starting anew"
            );
            self.restart_later();
        }
    }

    fn restart_later(&mut self) {
        self.timers.restart.get_or_insert(Instant::now() + limits::RESTART_DELAY);
    }

    fn restart(&mut self) -> Option<Report> {
        if let Some(daemon) = self.daemon.take() {
            let _ = daemon.shutdown();
        }
        self.events = None;
        self.events_before = None;
        if let Err(error) = self.start_daemon() {
            tracing::warn!(%error, "multicast discovery cannot start: trying again");
            self.restart_later();
        }
        Some(Report::Restarted)
    }
}

impl Drop for Mdns {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            let _ = daemon.shutdown();
        }
    }
}

impl Timers {
    fn next(&self) -> Instant {
        let others = [self.settle, self.end_polling, self.restart, self.answered];
        others.into_iter().flatten().fold(self.check.min(self.search), Instant::min)
    }
}

async fn network_changed(watcher: Option<&LinkWatcher>) -> std::io::Result<()> {
    match watcher {
        Some(watcher) => watcher.changed().await,
        None => pending().await,
    }
}

/// The next message, `None` when nobody sends any more. Waits for ever where there is no channel.
async fn receive<T>(channel: Option<&Receiver<T>>) -> Option<T> {
    match channel {
        Some(channel) => channel.recv_async().await.ok(),
        None => pending().await,
    }
}

fn full_name(announcement: &Announcement) -> String {
    let label = name::instance(&announcement.machine, &announcement.node);
    format!("{label}.{}", name::SERVICE_LOCAL)
}

fn service_info(announcement: &Announcement) -> Result<ServiceInfo, mdns_sd::Error> {
    let Announcement { machine, node, fabric, port } = announcement;
    let hint = Hint { node: Some(node.clone()), fabric: fabric.clone() };
    let properties: Vec<TxtProperty> =
        hint.properties().iter().map(|(key, value)| TxtProperty::from((*key, value))).collect();
    let mut info = ServiceInfo::new(
        name::SERVICE_LOCAL,
        &name::instance(machine, node),
        &name::host(node),
        (),
        *port,
        properties,
    )?
    .enable_addr_auto();
    // The names hold 64 bits of the node's id: nobody else has them.
    info.set_requires_probe(false);
    Ok(info)
}

fn report(event: ServiceEvent) -> Option<Report> {
    match event {
        ServiceEvent::ServiceResolved(service) => seen(&service).map(Report::Seen),
        ServiceEvent::ServiceRemoved(_, name) => Some(Report::Gone(name)),
        _ => None,
    }
}

/// What a resolved instance says. `None` when it cannot be reached anywhere.
fn seen(service: &ResolvedService) -> Option<Found> {
    let properties = service.txt_properties.iter();
    let properties =
        properties.map(|property| (property.key().as_bytes(), property.val().unwrap_or_default()));
    instance(&service.fullname, service.port, &service.addresses, properties)
}

/// The instance of this name, at these addresses, with these properties in its text.
pub(crate) fn instance<'a>(
    name: &str,
    port: u16,
    addresses: impl IntoIterator<Item = &'a ScopedIp>,
    properties: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> Option<Found> {
    if name.len() > limits::NAME_BYTES_MAX {
        return None;
    }
    let Hint { node, fabric } = Hint::read(properties);
    let addresses = tidy(addresses.into_iter().map(|address| socket_address(address, port)), false);
    let name = name.to_owned();
    (!addresses.is_empty()).then_some(Found { source: Source::Mdns, name, node, fabric, addresses })
}

fn socket_address(address: &ScopedIp, port: u16) -> SocketAddr {
    match address {
        ScopedIp::V6(v6) if v6.addr().is_unicast_link_local() => {
            SocketAddrV6::new(*v6.addr(), port, 0, v6.scope_id().index).into()
        }
        _ => SocketAddr::new(address.to_ip_addr(), port),
    }
}
