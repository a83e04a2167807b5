//! The section `[placement]`.

use super::super::item::{Item, Section};
use super::super::keys;
use super::super::{Affinity, Placement, Strategy};
use super::ParseError;
use crate::id::JobName;

const STRATEGIES: [(&str, Strategy); 2] =
    [("least-loaded", Strategy::LeastLoaded), ("best-fit", Strategy::BestFit)];

pub(super) fn placement(section: &Section<'_>, placement: &mut Placement) {
    section.only(&keys::PLACEMENT);
    placement.constraints = section.each("constraints", parsed);
    placement.affinity = section.each("affinity", affinity);
    placement.anti_affinity = section.each("anti_affinity", |item| {
        JobName::new(item.string()?).map_err(|error| item.error(error))
    });
    section.set("spread", &mut placement.spread, |item| match item.is_list() {
        true => item.elements(parsed),
        false => Ok(vec![parsed(item)?]),
    });
    section.set("sticky", &mut placement.sticky, Item::boolean);
    section.set("strategy", &mut placement.strategy, |item| item.choice(&STRATEGIES));
}

/// A condition, or `{ if = CONDITION, weight = NUMBER }`.
fn affinity(item: &Item<'_>) -> Result<Affinity, ParseError> {
    if !item.is_section() {
        return parsed(item).map(Affinity::new);
    }
    let section = item.section()?;
    section.only(&keys::AFFINITY);
    let mut weight = None;
    section.set("weight", &mut weight, |weight| {
        weight.integer(-Affinity::WEIGHT_MAX, Affinity::WEIGHT_MAX).map(Some)
    });
    let what = "a condition, as in if = \"labels.disk == ssd\"";
    let condition = section.item("if").ok_or_else(|| section.missing("if", what))?;
    let mut affinity = Affinity::new(parsed(&condition)?);
    affinity.weight = weight.unwrap_or(affinity.weight);
    Ok(affinity)
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(item: &Item<'_>) -> Result<T, ParseError> {
    item.string()?.parse().map_err(|error| item.error(error))
}
