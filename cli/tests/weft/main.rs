//! The built binary against an agent that behaves: exit codes, what goes to stdout and what to stderr.

mod asking;
mod deploying;
mod fake_agent;
mod measuring;
mod reaching;

use fake_agent::Fake;

/// Runs a test beside its own fake agent.
fn beside_an_agent<F: Future>(test: impl FnOnce(Fake) -> F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async { test(Fake::start()).await })
}
