//! Levels: what all agents of a fabric can read, so that old and new ones live side by side.
//!
//! - A build reads every level up to [`LEVEL`], and two before that at least. What it writes has the lowest level that can say
//!   it: a job that uses nothing new is written as an agent of level 1 wrote it, byte for byte.
//! - A fabric's level is the lowest of its members', and only rises (`node/levels.rs`). Nothing above it is written.
//! - Structs grow at their ends, with `evolving!`: a field of a later level is not written while it has its default. Enums grow at
//!   their ends, too, and a new variant states its level. What is there is never changed: golden vectors of each level see to it.

use crate::clock::WallTime;

/// What this build reads and writes.
///
/// | level | since | what came with it |
/// |---|---|---|
/// | 1 | 0.2.0 | all that was there |
/// | 2 | 0.2.0 | `[keep]` in a job |
/// | 3 | 0.2.0 | disk: in jobs, claims and quotas, and the pools of a node; the birth of the copy that another one replaces |
pub const LEVEL: u8 = 3;
/// The lowest level that an agent can be told to act at.
pub const LEVEL_MIN: u8 = 1;

/// The first byte of everything that is sent or stored is this, plus the level that is needed to read the rest.
pub const FORMAT: u8 = 0x10;

/// What says which level it needs.
pub trait Leveled {
    /// The lowest level at which it can be read.
    fn level(&self) -> u8 {
        LEVEL_MIN
    }
}

impl Leveled for WallTime {}
impl Leveled for u8 {}

impl<T: Leveled> Leveled for Option<T> {
    fn level(&self) -> u8 {
        self.as_ref().map_or(LEVEL_MIN, Leveled::level)
    }
}

impl<T: Leveled> Leveled for Box<T> {
    fn level(&self) -> u8 {
        (**self).level()
    }
}

impl<T: Leveled> Leveled for Vec<T> {
    fn level(&self) -> u8 {
        self.as_slice().level()
    }
}

impl<T: Leveled> Leveled for [T] {
    fn level(&self) -> u8 {
        self.iter().map(Leveled::level).max().unwrap_or(LEVEL_MIN)
    }
}

/// Whether a field of a later level has the value that it has where it is absent.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Serde for a struct that may get more fields: `evolving!(Type { fields of level 1 } 2 { fields of level 2 } within a, b)`.
/// `a` and `b` are fields that are [`Leveled`] themselves. The type derives serde's traits with `#[serde(remote = "Self")]`, which
/// is what text formats use.
///
/// In binary formats its fields follow each other, then the number of fields of later levels that follow, then these. Those at the
/// end that have their defaults are left out.
macro_rules! evolving {
    (
        $type:ident { $($field:ident $(: $as:ident)?),* $(,)? }
        $($level:literal { $($later:ident),* $(,)? })*
        $(within $($inner:ident),+)?
    ) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeTuple;
                if serializer.is_human_readable() {
                    return $type::serialize(self, serializer);
                }
                let set: &[bool] = &[$($(!$crate::level::is_default(&self.$later),)*)*];
                let count = set.iter().rposition(|set| *set).map_or(0, |last| last + 1);
                let fields = [$(stringify!($field)),*].len();
                let mut tuple = serializer.serialize_tuple(fields + 1 + count)?;
                $($crate::level::evolving!(@write tuple, self.$field $(, $as)?);)*
                tuple.serialize_element(&(count as u8))?;
                #[allow(unused_mut, unused_variables)]
                let mut index = 0;
                $($(
                    if index < count {
                        tuple.serialize_element(&self.$later)?;
                    }
                    index += 1;
                )*)*
                let _ = index;
                tuple.end()
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Fields;
                impl<'de> serde::de::Visitor<'de> for Fields {
                    type Value = $type;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(stringify!($type))
                    }

                    fn visit_seq<A: serde::de::SeqAccess<'de>>(
                        self,
                        mut fields: A,
                    ) -> Result<$type, A::Error> {
                        use serde::de::Error;
                        let short = || A::Error::custom("it ends too soon");
                        $(let $field = $crate::level::evolving!(@read fields, short $(, $as)?);)*
                        let count: u8 = fields.next_element()?.ok_or_else(short)?;
                        let known: &[&str] = &[$($(stringify!($later),)*)*];
                        if usize::from(count) > known.len() {
                            return Err(A::Error::custom(concat!(
                                "a ", stringify!($type), " with fields of a later level"
                            )));
                        }
                        #[allow(unused_mut, unused_variables)]
                        let mut index = 0;
                        $($(
                            let $later = match index < count {
                                true => fields.next_element()?.ok_or_else(short)?,
                                false => Default::default(),
                            };
                            index += 1;
                        )*)*
                        let _ = index;
                        Ok($type { $($field,)* $($($later,)*)* })
                    }
                }
                if deserializer.is_human_readable() {
                    return $type::deserialize(deserializer);
                }
                let fields = [$(stringify!($field)),*].len();
                let later: &[&str] = &[$($(stringify!($later),)*)*];
                deserializer.deserialize_tuple(fields + 1 + later.len(), Fields)
            }
        }

        impl $crate::level::Leveled for $type {
            fn level(&self) -> u8 {
                #[allow(unused_mut)]
                let mut level = $crate::level::LEVEL_MIN;
                $($(
                    if !$crate::level::is_default(&self.$later) {
                        level = level.max($level);
                    }
                )*)*
                $($(level = level.max($crate::level::Leveled::level(&self.$inner));)+)?
                level
            }
        }
    };
    (@write $tuple:ident, $value:expr) => { $tuple.serialize_element(&$value)? };
    (@write $tuple:ident, $value:expr, $as:ident) => { $tuple.serialize_element(&$as($value.clone()))? };
    (@read $fields:ident, $short:ident) => { $fields.next_element()?.ok_or_else($short)? };
    (@read $fields:ident, $short:ident, $as:ident) => {
        $fields.next_element::<$as>()?.ok_or_else($short)?.0
    };
}
pub(crate) use evolving;

#[cfg(test)]
mod tests;
