//! A tree as text that parses to the same tree.

use std::fmt::{self, Display, Formatter};

use super::{Aggregate, At, Binary, Expr, Many, Operator, Selector, Subquery, When};
use crate::labels::{Matching, NAME, is_metric_name, quoted};

impl Display for Expr {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        match self {
            Expr::Number(number) => number_text(*number, out),
            Expr::Text(text) => out.write_str(&quoted(text)),
            Expr::Selector(selector) => {
                selector.body(out)?;
                selector.when.fmt(out)
            }
            Expr::Range(selector, range_ms) => {
                selector.body(out)?;
                write!(out, "[{range_ms}ms]")?;
                selector.when.fmt(out)
            }
            Expr::Subquery(subquery) => subquery.fmt(out),
            Expr::Negative(expr) => write!(out, "-({expr})"),
            Expr::Binary(binary) => binary.fmt(out),
            Expr::Aggregate(aggregate) => aggregate.fmt(out),
            Expr::Call(function, arguments) => {
                write!(out, "{}(", function.name)?;
                for (index, argument) in arguments.iter().enumerate() {
                    write!(out, "{}{argument}", if index > 0 { ", " } else { "" })?;
                }
                out.write_str(")")
            }
            Expr::Part(_, original) => original.fmt(out),
        }
    }
}

impl Selector {
    fn body(&self, out: &mut Formatter) -> fmt::Result {
        let name = self.matchers.iter().position(|matcher| {
            matcher.label == NAME
                && matcher.matching == Matching::Equal
                && is_metric_name(&matcher.value)
                && !is_word(&matcher.value)
        });
        // The name can stand in front only once, and only if no other matcher looks at it.
        let name =
            name.filter(|_| self.matchers.iter().filter(|one| one.label == NAME).count() == 1);
        if let Some(name) = name {
            out.write_str(&self.matchers[name].value)?;
        }
        let rest = self.matchers.iter().enumerate().filter(|(index, _)| Some(*index) != name);
        let rest: Vec<String> = rest.map(|(_, matcher)| matcher.to_string()).collect();
        if name.is_some() && rest.is_empty() {
            return Ok(());
        }
        write!(out, "{{{}}}", rest.join(", "))
    }
}

impl Display for When {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        match self.at {
            None => {}
            Some(At::Start) => out.write_str(" @ start()")?,
            Some(At::End) => out.write_str(" @ end()")?,
            Some(At::Time(ms)) => {
                let sign = if ms < 0 { "-" } else { "" };
                write!(out, " @ {sign}{}.{:03}", ms.abs() / 1000, ms.abs() % 1000)?;
            }
        }
        match self.offset_ms {
            0 => Ok(()),
            ms if ms < 0 => write!(out, " offset -{}ms", -ms),
            ms => write!(out, " offset {ms}ms"),
        }
    }
}

impl Display for Subquery {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        write!(out, "({})[{}ms:", self.expr, self.range_ms)?;
        if let Some(step_ms) = self.step_ms {
            write!(out, "{step_ms}ms")?;
        }
        write!(out, "]{}", self.when)
    }
}

impl Display for Binary {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        let precedence = self.operator.precedence();
        // A minus in front binds looser than a power.
        let loose = |expr: &Expr| match expr {
            Expr::Binary(inner) => Some(inner.operator.precedence()),
            Expr::Negative(_) => Some(Operator::Power.precedence() - 1),
            Expr::Number(number) if number.is_sign_negative() => {
                Some(Operator::Power.precedence() - 1)
            }
            _ => None,
        };
        let right_first = self.operator == Operator::Power;
        let parenthesised = |out: &mut Formatter, expr: &Expr, tight: bool| match loose(expr) {
            Some(inner) if inner < precedence || (inner == precedence && !tight) => {
                write!(out, "({expr})")
            }
            _ => write!(out, "{expr}"),
        };
        parenthesised(out, &self.left, !right_first)?;
        write!(out, " {}", self.operator.sign())?;
        if self.bool {
            out.write_str(" bool")?;
        }
        let pairing = &self.pairing;
        if pairing.on || !pairing.labels.is_empty() || pairing.many != Many::None {
            let word = if pairing.on { "on" } else { "ignoring" };
            write!(out, " {word} ({})", pairing.labels.join(", "))?;
        }
        match pairing.many {
            Many::None => {}
            Many::Left => write!(out, " group_left ({})", pairing.include.join(", "))?,
            Many::Right => write!(out, " group_right ({})", pairing.include.join(", "))?,
        }
        out.write_str(" ")?;
        parenthesised(out, &self.right, right_first)
    }
}

impl Display for Aggregate {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        out.write_str(self.operation.name())?;
        if self.grouping.without || !self.grouping.labels.is_empty() {
            let word = if self.grouping.without { "without" } else { "by" };
            write!(out, " {word} ({}) ", self.grouping.labels.join(", "))?;
        }
        match &self.parameter {
            Some(parameter) => write!(out, "({parameter}, {})", self.expr),
            None => write!(out, "({})", self.expr),
        }
    }
}

fn number_text(number: f64, out: &mut Formatter) -> fmt::Result {
    if number.is_nan() {
        out.write_str("NaN")
    } else if number.is_infinite() {
        out.write_str(if number > 0.0 { "Inf" } else { "-Inf" })
    } else if number != 0.0 && !(1e-6..1e16).contains(&number.abs()) {
        write!(out, "{number:e}")
    } else {
        write!(out, "{number}")
    }
}

/// Words that mean something else when they stand alone.
fn is_word(name: &str) -> bool {
    const WORDS: [&str; 11] = [
        "and",
        "or",
        "unless",
        "atan2",
        "bool",
        "on",
        "ignoring",
        "group_left",
        "group_right",
        "inf",
        "nan",
    ];
    WORDS.iter().any(|word| name.eq_ignore_ascii_case(word))
}
