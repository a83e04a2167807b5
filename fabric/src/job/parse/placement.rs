//! The section `[placement]`.

use super::super::item::{Item, Section};
use super::super::keys;
use super::super::{Affinity, Placement, Strategy};
use super::ParseError;
use crate::id::JobName;

const STRATEGIES: [(&str, Strategy); 2] =
    [("least-loaded", Strategy::LeastLoaded), ("best-fit", Strategy::BestFit)];

pub(super) fn placement(
    section: &Section<'_>,
    placement: &mut Placement,
) -> Result<(), ParseError> {
    section.only(&keys::PLACEMENT)?;
    if let Some(item) = section.item("constraints") {
        for item in item.list()? {
            placement.constraints.push(parsed(&item)?);
        }
    }
    if let Some(item) = section.item("affinity") {
        for item in item.list()? {
            placement.affinity.push(affinity(&item)?);
        }
    }
    if let Some(item) = section.item("anti_affinity") {
        for item in item.list()? {
            let job = JobName::new(item.string()?).map_err(|error| item.error(error))?;
            placement.anti_affinity.push(job);
        }
    }
    if let Some(item) = section.item("spread") {
        placement.spread = if item.is_list() {
            item.list()?.iter().map(parsed).collect::<Result<_, _>>()?
        } else {
            vec![parsed(&item)?]
        };
    }
    if let Some(item) = section.item("sticky") {
        placement.sticky = item.boolean()?;
    }
    if let Some(item) = section.item("strategy") {
        placement.strategy = item.choice(&STRATEGIES)?;
    }
    Ok(())
}

/// A condition, or `{ if = CONDITION, weight = NUMBER }`.
fn affinity(item: &Item<'_>) -> Result<Affinity, ParseError> {
    if !item.is_section() {
        return parsed(item).map(Affinity::new);
    }
    let section = item.section()?;
    section.only(&keys::AFFINITY)?;
    let condition = section.required("if", "a condition, as in if = \"labels.disk == ssd\"")?;
    let mut affinity = Affinity::new(parsed(&condition)?);
    if let Some(weight) = section.item("weight") {
        affinity.weight = weight.integer(-Affinity::WEIGHT_MAX, Affinity::WEIGHT_MAX)?;
    }
    Ok(affinity)
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(item: &Item<'_>) -> Result<T, ParseError> {
    item.string()?.parse().map_err(|error| item.error(error))
}
