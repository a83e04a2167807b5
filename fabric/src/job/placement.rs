//! Where allocations may run, and where they are better off.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::constraint::{Attribute, Constraint};
use crate::id::JobName;
use crate::level::evolving;

/// The levels of a spread in binary formats.
#[derive(Serialize, Deserialize)]
struct Spread(#[serde(with = "levels")] Vec<Attribute>);

/// Where allocations may run, and where they are better off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", default)]
pub struct Placement {
    /// All must hold.
    pub constraints: Vec<Constraint>,
    /// Each that holds makes a node better, or worse.
    pub affinity: Vec<Affinity>,
    /// Spread slots evenly over the values of the first attribute, within one value over those of the
    /// second, and so on.
    #[serde(with = "levels")]
    pub spread: Vec<Attribute>,
    /// What a good node is, among those that fit.
    pub strategy: Strategy,
    /// Jobs without an allocation on any node that takes one of this job. It binds this job alone: the
    /// others may come to its nodes later, unless they name it too. Its own name: one slot a node.
    pub anti_affinity: Vec<JobName>,
    /// A replacement goes where the slot was last, as long as that node is up and has room.
    pub sticky: bool,
}

evolving!(Placement { constraints, affinity, spread: Spread, strategy, anti_affinity, sticky });

/// What a good node is, among those that fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// The one with the most left: work spreads out.
    #[default]
    LeastLoaded,
    /// The one with the least left: large holes stay for large work. For exclusive cores the hole that
    /// counts is a memory node's.
    BestFit,
}

/// A condition that makes a node better where it holds. In JSON and in the job file the condition alone,
/// as text, if it has the usual weight; else `{"if": CONDITION, "weight": NUMBER}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// What has to hold.
    pub condition: Constraint,
    /// How much it counts, from -100 to 100; with a negative weight nodes where it holds are worse.
    pub weight: i8,
}

impl Affinity {
    /// Weight of a condition that is written without one.
    pub const USUAL_WEIGHT: i8 = 10;
    /// The greatest weight; the least is as far below zero.
    pub const WEIGHT_MAX: i8 = 100;

    /// `condition` with the usual weight.
    pub fn new(condition: Constraint) -> Self {
        Self { condition, weight: Self::USUAL_WEIGHT }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Weighted {
    #[serde(rename = "if")]
    condition: Constraint,
    weight: i8,
}

impl Serialize for Affinity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() && self.weight == Self::USUAL_WEIGHT {
            return self.condition.serialize(serializer);
        }
        Weighted { condition: self.condition.clone(), weight: self.weight }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Affinity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Plain(String),
            Weighted(Weighted),
        }
        let weighted = if deserializer.is_human_readable() {
            match Form::deserialize(deserializer)? {
                Form::Plain(text) => return text.parse().map(Self::new).map_err(de::Error::custom),
                Form::Weighted(weighted) => weighted,
            }
        } else {
            Weighted::deserialize(deserializer)?
        };
        Ok(Self { condition: weighted.condition, weight: weighted.weight })
    }
}

/// In JSON nothing is `null` and one level its name alone, as before there were several.
mod levels {
    use super::*;

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Form {
        None(()),
        One(Attribute),
        Several(Vec<Attribute>),
    }

    pub fn serialize<S: Serializer>(levels: &[Attribute], to: S) -> Result<S::Ok, S::Error> {
        match levels {
            [] if to.is_human_readable() => to.serialize_none(),
            [one] if to.is_human_readable() => one.serialize(to),
            several => several.serialize(to),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Attribute>, D::Error> {
        if !from.is_human_readable() {
            return Vec::deserialize(from);
        }
        Ok(match Form::deserialize(from)? {
            Form::None(()) => Vec::new(),
            Form::One(attribute) => vec![attribute],
            Form::Several(levels) => levels,
        })
    }
}
