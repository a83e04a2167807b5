//! PromQL's syntax: an expression as text, checked, as a tree, and as text again.
//!
//! The language is that of Prometheus 2.42 without native histograms and the `@` modifier's relatives that came later, with two
//! functions of Prometheus 3: `mad_over_time`, and `double_exponential_smoothing`, which is `holt_winters`. The tree has no parentheses: [`Expr`]'s `Display` sets them
//! where they are needed.

mod functions;
mod lexer;
mod parser;
mod print;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use self::functions::{Function, How, Over};
pub use self::parser::parse;
use crate::labels::Matcher;

/// Why a text is not an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: parse error: {reason}")]
pub struct SyntaxError {
    /// Bytes before it.
    pub position: usize,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong there.
    pub reason: String,
}

/// What an expression is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number.
    Scalar,
    /// A value of each of some series.
    Vector,
    /// Samples of each of some series.
    Matrix,
    /// A text.
    Text,
}

impl Kind {
    /// As Prometheus names it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Scalar => "scalar",
            Kind::Vector => "instant vector",
            Kind::Matrix => "range vector",
            Kind::Text => "string",
        }
    }
}

/// A checked expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// `1.5`
    Number(f64),
    /// `"text"`
    Text(String),
    /// `metric{label="value"}`
    Selector(Selector),
    /// `metric[5m]`: all samples of so many milliseconds.
    Range(Selector, i64),
    /// `expression[5m:1m]`
    Subquery(Box<Subquery>),
    /// `-expression`
    Negative(Box<Expr>),
    /// `expression + expression`
    Binary(Box<Binary>),
    /// `sum by (label) (expression)`
    Aggregate(Box<Aggregate>),
    /// `rate(...)`
    Call(&'static Function, Vec<Expr>),
    /// Something that was evaluated elsewhere: the number of the part, and what it stands for. Only
    /// [`fleet`](crate::fleet) makes these.
    Part(usize, Arc<Expr>),
}

/// Chooses series.
#[derive(Clone, Debug, PartialEq)]
pub struct Selector {
    /// All of these.
    pub matchers: Vec<Matcher>,
    /// When.
    pub when: When,
}

/// Which time a selector or a subquery looks at instead of the time of evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct When {
    /// So many milliseconds before; negative: after.
    pub offset_ms: i64,
    /// Always there.
    pub at: Option<At>,
}

/// What `@` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Milliseconds since the epoch.
    Time(i64),
    /// The start of the whole query.
    Start,
    /// The end of the whole query.
    End,
}

/// A range query as if it were a range of samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Subquery {
    /// What is evaluated.
    pub expr: Expr,
    /// How far back.
    pub range_ms: i64,
    /// How often; `None`: the default.
    pub step_ms: Option<i64>,
    /// When.
    pub when: When,
}

/// Two operands.
#[derive(Clone, Debug, PartialEq)]
pub struct Binary {
    /// What is done.
    pub operator: Operator,
    /// Comparisons only: 0 and 1 rather than a choice.
    pub bool: bool,
    /// How series find each other.
    pub pairing: Pairing,
    /// To the left.
    pub left: Expr,
    /// To the right.
    pub right: Expr,
}

/// How the series of two vectors find each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairing {
    /// `on`: only `labels` count; `ignoring`: all but `labels`.
    pub on: bool,
    /// The labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// Which side may have several.
    pub many: Many,
    /// Labels that the many get from the one.
    pub include: Vec<String>,
}

/// Which side may have several series for one of the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Many {
    /// Neither.
    #[default]
    None,
    /// `group_left`
    Left,
    /// `group_right`
    Right,
}

/// A binary operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names and signs say all")]
pub enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
    Atan2,
    Equal,
    NotEqual,
    Less,
    Greater,
    LessEqual,
    GreaterEqual,
    And,
    Or,
    Unless,
}

impl Operator {
    /// As it is written.
    pub fn sign(self) -> &'static str {
        match self {
            Operator::Add => "+",
            Operator::Subtract => "-",
            Operator::Multiply => "*",
            Operator::Divide => "/",
            Operator::Modulo => "%",
            Operator::Power => "^",
            Operator::Atan2 => "atan2",
            Operator::Equal => "==",
            Operator::NotEqual => "!=",
            Operator::Less => "<",
            Operator::Greater => ">",
            Operator::LessEqual => "<=",
            Operator::GreaterEqual => ">=",
            Operator::And => "and",
            Operator::Or => "or",
            Operator::Unless => "unless",
        }
    }

    /// How tightly it binds.
    pub fn precedence(self) -> u8 {
        match self {
            Operator::Or => 1,
            Operator::And | Operator::Unless => 2,
            _ if self.compares() => 3,
            Operator::Add | Operator::Subtract => 4,
            Operator::Power => 6,
            _ => 5,
        }
    }

    /// Whether it is a comparison.
    pub fn compares(self) -> bool {
        matches!(
            self,
            Operator::Equal
                | Operator::NotEqual
                | Operator::Less
                | Operator::Greater
                | Operator::LessEqual
                | Operator::GreaterEqual
        )
    }

    /// Whether it works on sets of series.
    pub fn is_set(self) -> bool {
        matches!(self, Operator::And | Operator::Or | Operator::Unless)
    }
}

/// An aggregation.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// Which one.
    pub operation: Aggregation,
    /// `by (labels)` or `without (labels)`.
    pub grouping: Grouping,
    /// What `topk`, `bottomk`, `quantile` and `count_values` take first.
    pub parameter: Option<Expr>,
    /// What is aggregated.
    pub expr: Expr,
}

/// Which series of a vector form a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grouping {
    /// `without`: all labels but these.
    pub without: bool,
    /// The labels.
    pub labels: Vec<String>,
}

/// What is done with a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names say all")]
pub enum Aggregation {
    Sum,
    Min,
    Max,
    Avg,
    Count,
    Group,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    Quantile,
    CountValues,
}

impl Aggregation {
    /// All of them.
    pub const ALL: [Aggregation; 12] = [
        Aggregation::Sum,
        Aggregation::Min,
        Aggregation::Max,
        Aggregation::Avg,
        Aggregation::Count,
        Aggregation::Group,
        Aggregation::Stddev,
        Aggregation::Stdvar,
        Aggregation::Topk,
        Aggregation::Bottomk,
        Aggregation::Quantile,
        Aggregation::CountValues,
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Aggregation::Sum => "sum",
            Aggregation::Min => "min",
            Aggregation::Max => "max",
            Aggregation::Avg => "avg",
            Aggregation::Count => "count",
            Aggregation::Group => "group",
            Aggregation::Stddev => "stddev",
            Aggregation::Stdvar => "stdvar",
            Aggregation::Topk => "topk",
            Aggregation::Bottomk => "bottomk",
            Aggregation::Quantile => "quantile",
            Aggregation::CountValues => "count_values",
        }
    }

    /// What its parameter is, if it has one.
    pub fn parameter(self) -> Option<Kind> {
        match self {
            Aggregation::Topk | Aggregation::Bottomk | Aggregation::Quantile => Some(Kind::Scalar),
            Aggregation::CountValues => Some(Kind::Text),
            _ => None,
        }
    }
}

impl Expr {
    /// What it gives.
    pub fn kind(&self) -> Kind {
        match self {
            Expr::Number(_) => Kind::Scalar,
            Expr::Text(_) => Kind::Text,
            Expr::Selector(_) | Expr::Aggregate(_) => Kind::Vector,
            Expr::Range(..) | Expr::Subquery(_) => Kind::Matrix,
            Expr::Negative(expr) => expr.kind(),
            Expr::Binary(binary) => match (binary.left.kind(), binary.right.kind()) {
                (Kind::Scalar, Kind::Scalar) => Kind::Scalar,
                _ => Kind::Vector,
            },
            Expr::Call(function, _) => function.result,
            Expr::Part(_, original) => original.kind(),
        }
    }
}
