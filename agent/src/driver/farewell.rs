//! The last word of an agent: its peers are told that it stops, so that they need not guess why it is silent.
//!
//! An agent that is told to stop says it itself. After one that was killed or has crashed the service manager runs
//! `weftd farewell` (`ExecStopPost=`): it reads from the state directory who the members are, tells each of them, and ends.
//! Nothing of it is there at rest.

use anyhow::Context;
use fabric::io::Input;
use fabric::message::Datagram;
use fabric::node::{Config as Core, Node, Origin};
use fabric::topology::NodeInfo;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::Driver;
use super::addresses::{LinkAddresses, routes};
use super::handover;
use crate::clock::Clock;
use crate::config::Config;
use crate::identity::{self, Fabric, Identity};
use crate::level;
use crate::machine::{self, Machine};
use crate::quic::{Sockets, for_socket};
use crate::seal::{Seal, Start};
use crate::store;

/// The first argument of `weftd farewell`.
pub const WORD: &str = "farewell";
/// Addresses of each member that the word is sent to.
const ADDRESSES_MAX: usize = 3;
/// systemd says within this whether the machine is being shut down; later the agent does not wait for it.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);

impl Driver {
    /// Tells the peers that this agent stops, and whether its machine goes with it.
    pub(super) async fn say_goodbye(&mut self) {
        let asked = self.work.executor.is_shutting_down();
        let ends = tokio::time::timeout(ASK_TIMEOUT, asked).await.unwrap_or(false);
        if ends {
            tracing::info!("the machine is shut down: its work is placed elsewhere at once");
        }
        self.input(Input::Leaving { ends });
        self.carry_out();
    }
}

/// Says goodbye for an agent that could not.
pub fn main(config: &Config) -> ExitCode {
    // systemd tells how the agent ended: one that was told to stop has said it.
    if std::env::var_os("SERVICE_RESULT").is_some_and(|result| result == "success") {
        return ExitCode::SUCCESS;
    }
    match tell(config) {
        Ok(told) => {
            eprintln!(
                "weftd farewell: told {told} members that the agent has ended and its units run on"
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("weftd farewell: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn tell(config: &Config) -> anyhow::Result<usize> {
    let Some(fabric) = Fabric::load(&config.state)? else { return Ok(0) };
    // A copy of another machine's state says nothing in that one's name.
    machine::check(&config.state, &Machine::this(Path::new("/")))?;
    let now = Clock::start().now();
    // First of all: beside an agent that runs this changes nothing.
    let opened = store::open(&config.state)?;
    // An agent that may not read this is not about to come back: there is nothing to say for it.
    level::check(config, &opened.rows)?;
    let identity = Arc::new(Identity::load_or_create(&config.state)?);
    let before = identity::last_generation(&config.state);
    let generation = identity::next_generation(&config.state, now.wall.0);
    let start = Start::new(generation)?;
    // This one votes nothing: what the agent has granted is for the next agent all the same.
    if let Err(error) = handover::pass_on(&config.api.socket, identity.id(), before, generation) {
        eprintln!("weftd farewell: the next agent will be mute as a voter for a while: {error:#}");
    }
    let core = Core {
        id: identity.id(),
        info: NodeInfo::default(),
        fabric: fabric.key(),
        fabric_name: fabric.name().into(),
        signer: identity.clone(),
        generation: start.generation,
        seed: 0,
        canary: None,
        level: config.node.level(),
        bounds: fabric::table::Bounds::default(),
    };
    let node = Node::new(now, core, Origin::Restored { rows: opened.rows, handover: None });
    let mut seal = Seal::new(identity.id(), start);
    seal.trust(&node.keyring(), |member| node.is_member(member));
    // From the agent's own port, which is free now: that is where it is listened to.
    let sockets = Sockets::bind(config.gossip_address()).context("the agent's port")?;
    let bound = sockets.gossip.local_addr()?;
    let (payload, local) = (Datagram::Leaving { ends: false }.encode(), LinkAddresses::default());
    let local = LinkAddresses::look(&Default::default(), &local);
    let mut told = 0;
    for (member, _) in node.roster().into_iter().filter(|(member, _)| *member != identity.id()) {
        let addresses = node.addresses(&member).into_iter().take(ADDRESSES_MAX);
        let routes = addresses.flat_map(|address| routes(address, &local));
        let mut sent = false;
        for route in routes {
            let sealed = seal.seal(&member, &payload)?;
            sent |= sockets.gossip.send_to(&sealed, for_socket(route, bound)).is_ok();
        }
        told += usize::from(sent);
    }
    Ok(told)
}
