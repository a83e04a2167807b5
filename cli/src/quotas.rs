//! `weft quota`: what namespaces may have.

use fabric::api::{QuotaView, SetQuota};
use fabric::quota::{Amount, Quota};
use fabric::resources;
use hyper::Method;

use crate::Context;
use crate::client::escape;
use crate::exit::{Exit, Failure};
use crate::screen::Table;

/// Limits what a namespace may have.
pub async fn set(
    context: &Context,
    namespace: &str,
    quota: Quota,
    force: bool,
) -> Result<Exit, Failure> {
    quota.validate().map_err(Failure::usage)?;
    let path = format!("/v1/quotas/{}", escape(namespace));
    context.client.tell(Method::PUT, &path, &SetQuota { quota, force }).await?;
    context
        .screen
        .say(&format!("namespace {namespace} has a quota; weft quota list shows what is used"));
    Ok(Exit::Ok)
}

/// Lets a namespace have whatever fits.
pub async fn remove(context: &Context, namespace: &str) -> Result<Exit, Failure> {
    context.client.delete(&format!("/v1/quotas/{}", escape(namespace))).await?;
    context.screen.say(&format!("namespace {namespace} may have whatever fits"));
    Ok(Exit::Ok)
}

/// Lists quotas and what is used of them.
pub async fn list(context: &Context) -> Result<Exit, Failure> {
    let quotas: Vec<QuotaView> = context.client.get("/v1/quotas").await?;
    if context.screen.is_json() {
        context.screen.json(&quotas)?;
        return Ok(Exit::Ok);
    }
    if context.screen.names(quotas.iter().map(|quota| &quota.namespace))? {
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["NAMESPACE", "CPUS", "MEMORY", "DISK", "ALLOCATIONS", "DEVICES"]);
    for view in &quotas {
        let (quota, used) = (&view.quota, &view.used);
        let cpus = |millis: u64| (millis as f64 / 1000.0).to_string();
        table.row([
            view.namespace.to_string().into(),
            of(cpus(used.cpu_millis), quota.cpu_millis.map(cpus)).into(),
            of(resources::bytes(used.memory), quota.memory.map(resources::bytes)).into(),
            of(resources::bytes(used.disk), quota.disk.map(resources::bytes)).into(),
            of(used.allocs.to_string(), quota.allocs.map(|most| most.to_string())).into(),
            devices(quota, used).into(),
        ]);
    }
    context.screen.table(&table)?;
    Ok(Exit::Ok)
}

fn of(used: String, most: Option<String>) -> String {
    most.map_or(used.clone(), |most| format!("{used} of {most}"))
}

fn devices(quota: &Quota, used: &Amount) -> String {
    let mut classes: Vec<&String> = quota.devices.keys().chain(used.devices.keys()).collect();
    classes.sort();
    classes.dedup();
    let one = |class: &&String| {
        let used = used.devices.get(*class).copied().unwrap_or(0).to_string();
        format!("{class}: {}", of(used, quota.devices.get(*class).map(ToString::to_string)))
    };
    classes.iter().map(one).collect::<Vec<_>>().join(", ")
}
