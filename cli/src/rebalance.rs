//! `weft rebalance`.

use fabric::api::{HolesView, Rebalance, RebalanceBody};
use fabric::resources::bytes;
use hyper::Method;

use crate::Context;
use crate::exit::{Exit, Failure};
use crate::screen::{Table, Tone, plural};

/// Shows the moves that would make things better, or has them made.
pub async fn rebalance(context: &Context, wish: RebalanceBody) -> Result<Exit, Failure> {
    let found: Rebalance = context.client.send(Method::POST, "/v1/rebalance", &wish).await?;
    if context.screen.is_json() {
        context.screen.json(&found)?;
        return Ok(Exit::Ok);
    }
    context.screen.fields(&[
        ("largest hole", hole(&found.before).into()),
        ("after that", hole(&found.after).into()),
    ])?;
    if found.moves.is_empty() {
        context.screen.say("no move would make anything better");
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["SLOT", "FROM", "TO", "GAIN"]);
    for made in &found.moves {
        table.row([
            made.slot.to_string().into(),
            made.from_name.clone().into(),
            made.to_name.clone().into(),
            made.gain.clone().into(),
        ]);
    }
    context.screen.data("")?;
    context.screen.table(&table)?;
    let moves = plural(found.moves.len(), "move");
    if found.applied {
        let said = format!("{moves} asked for: each slot starts there before it ends here");
        context.screen.say_toned(Tone::Good, &said);
    } else {
        context
            .screen
            .say(&format!("{moves}; nothing was changed: weft rebalance --apply makes them"));
    }
    Ok(Exit::Ok)
}

fn hole(holes: &HolesView) -> String {
    let cores = plural(holes.cores as usize, "core");
    format!("{cores} on one memory node, {} of memory on one node", bytes(holes.memory))
}
