//! What namespaces may have.

use fabric::api::{Problem, SetQuota};
use fabric::io::Request;

use super::doc::says;
use super::given::Given;
use super::{Operation, Reply, Role, Route, delete, get, put, read, wish};

pub const ROUTES: &[Route] = &[
    get("/v1/quotas", Role::Look, quotas)
        .doc(says("What namespaces may have, and have.").lists("QuotaView")),
    put("/v1/quotas/{namespace}", Role::Own, set).doc(
        says("Limit what a namespace may have. Refused when something would have to stop, unless forced.")
            .takes("SetQuota")
            .done("Done"),
    ),
    delete("/v1/quotas/{namespace}", Role::Own, remove)
        .doc(says("Let a namespace have whatever fits.").done("Done")),
];

fn quotas(_: &Given<'_>) -> Result<Operation, Problem> {
    read(|node, _| Reply::json(&node.quotas()))
}

fn set(given: &Given<'_>) -> Result<Operation, Problem> {
    let namespace = given.namespace()?;
    let SetQuota { quota, force } = given.json()?;
    wish(move |_, _| Ok(Request::SetQuota { namespace, quota, force }))
}

fn remove(given: &Given<'_>) -> Result<Operation, Problem> {
    let namespace = given.namespace()?;
    wish(move |_, _| Ok(Request::RemoveQuota { namespace }))
}
