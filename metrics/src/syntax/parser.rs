//! Tokens into a checked tree: precedence climbing, with Prometheus's checks of kinds on the way.

use super::lexer::{Token, error, tokens};
use super::{
    Aggregate, Aggregation, At, Binary, Expr, Function, Grouping, Kind, Many, Operator, Pairing,
    Selector, Subquery, SyntaxError, When,
};
use crate::labels::{Matcher, Matching, NAME, is_label_name};
use crate::limits::{EXPRESSION_DEPTH_MAX, TIME_MS_MAX};

/// Parses and checks an expression.
pub fn parse(text: &str) -> Result<Expr, SyntaxError> {
    let mut parser = Parser { text, tokens: tokens(text)?, at: 0, depth: 0 };
    if *parser.peek() == Token::End {
        return Err(parser.error("no expression found in input"));
    }
    let expr = parser.binary(1)?;
    match parser.peek() {
        Token::End => Ok(expr),
        other => Err(parser.error(format!("unexpected {}", other.shown()))),
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(Token, usize)>,
    at: usize,
    depth: usize,
}

type Parsed<T> = Result<T, SyntaxError>;

impl Parser<'_> {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn position(&self) -> usize {
        self.tokens[self.at].1
    }

    fn next(&mut self) -> Token {
        let token = self.tokens[self.at].0.clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    fn error(&self, reason: impl Into<String>) -> SyntaxError {
        error(self.text, self.position(), reason)
    }

    fn error_at(&self, position: usize, reason: impl Into<String>) -> SyntaxError {
        error(self.text, position, reason)
    }

    fn unexpected(&self, wanted: &str) -> SyntaxError {
        self.error(format!("unexpected {}, expected {wanted}", self.peek().shown()))
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(this) if *this == sign)
    }

    fn accept(&mut self, sign: &str) -> bool {
        let found = self.is_sign(sign);
        if found {
            self.next();
        }
        found
    }

    fn expect(&mut self, sign: &str) -> Parsed<()> {
        if self.accept(sign) { Ok(()) } else { Err(self.unexpected(&format!("{sign:?}"))) }
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Word(this) if this.eq_ignore_ascii_case(word))
    }

    fn accept_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.next();
        }
        found
    }

    fn deeper(&mut self) -> Parsed<()> {
        self.depth += 1;
        if self.depth > EXPRESSION_DEPTH_MAX {
            let reason = format!(
                "the expression is nested or chained more than {EXPRESSION_DEPTH_MAX} deep"
            );
            return Err(self.error(reason));
        }
        Ok(())
    }

    /// Operators that bind at least as tightly as `lowest`.
    fn binary(&mut self, lowest: u8) -> Parsed<Expr> {
        let depth = self.depth;
        self.deeper()?;
        let start = self.position();
        let mut left = self.unary()?;
        while let Some(operator) = self.operator().filter(|found| found.precedence() >= lowest) {
            // A chain makes a tree as deep as it is long.
            self.deeper()?;
            let operator_at = self.position();
            self.next();
            let (bool, pairing) = self.modifiers(operator)?;
            let right_at = self.position();
            let next = operator.precedence() + u8::from(operator != Operator::Power);
            let right = self.binary(next)?;
            let binary = Binary { operator, bool, pairing, left, right };
            left = self.checked(binary, start, operator_at, right_at)?;
        }
        self.depth = depth;
        Ok(left)
    }

    fn operator(&self) -> Option<Operator> {
        Some(match self.peek() {
            Token::Sign(sign) => match *sign {
                "+" => Operator::Add,
                "-" => Operator::Subtract,
                "*" => Operator::Multiply,
                "/" => Operator::Divide,
                "%" => Operator::Modulo,
                "^" => Operator::Power,
                "==" => Operator::Equal,
                "!=" => Operator::NotEqual,
                "<" => Operator::Less,
                ">" => Operator::Greater,
                "<=" => Operator::LessEqual,
                ">=" => Operator::GreaterEqual,
                _ => return None,
            },
            _ if self.is_word("and") => Operator::And,
            _ if self.is_word("or") => Operator::Or,
            _ if self.is_word("unless") => Operator::Unless,
            _ if self.is_word("atan2") => Operator::Atan2,
            _ => return None,
        })
    }

    fn modifiers(&mut self, operator: Operator) -> Parsed<(bool, Pairing)> {
        let bool_at = self.position();
        let bool = self.accept_word("bool");
        if bool && !operator.compares() {
            return Err(
                self.error_at(bool_at, "bool modifier can only be used on comparison operators")
            );
        }
        let mut pairing = Pairing::default();
        let on = self.is_word("on");
        if on || self.is_word("ignoring") {
            self.next();
            pairing.on = on;
            pairing.labels = self.label_list()?;
            let group_at = self.position();
            if self.accept_word("group_left") {
                pairing.many = Many::Left;
            } else if self.accept_word("group_right") {
                pairing.many = Many::Right;
            }
            if pairing.many != Many::None {
                if operator.is_set() {
                    let reason = format!("no grouping allowed for {:?} operation", operator.sign());
                    return Err(self.error_at(group_at, reason));
                }
                if self.is_sign("(") {
                    pairing.include = self.label_list()?;
                }
                let twice =
                    pairing.include.iter().find(|label| on && pairing.labels.contains(label));
                if let Some(label) = twice {
                    let reason =
                        format!("label {label:?} must not occur in ON and GROUP clause at once");
                    return Err(self.error_at(group_at, reason));
                }
            }
        }
        Ok((bool, pairing))
    }

    fn checked(&self, binary: Binary, left_at: usize, at: usize, right_at: usize) -> Parsed<Expr> {
        let (left, right) = (binary.left.kind(), binary.right.kind());
        for (kind, position) in [(left, left_at), (right, right_at)] {
            if !matches!(kind, Kind::Scalar | Kind::Vector) {
                let reason = "binary expression must contain only scalar and instant vector types";
                return Err(self.error_at(position, reason));
            }
        }
        let operator = binary.operator;
        if operator.compares() && !binary.bool && left == Kind::Scalar && right == Kind::Scalar {
            return Err(self.error_at(at, "comparisons between scalars must use BOOL modifier"));
        }
        let vectors = left == Kind::Vector && right == Kind::Vector;
        if operator.is_set() && !vectors {
            let reason = format!(
                "set operator {:?} not allowed in binary scalar expression",
                operator.sign()
            );
            return Err(self.error_at(at, reason));
        }
        if !vectors && (binary.pairing.on || !binary.pairing.labels.is_empty()) {
            return Err(self.error_at(at, "vector matching only allowed between instant vectors"));
        }
        Ok(Expr::Binary(Box::new(binary)))
    }

    fn unary(&mut self) -> Parsed<Expr> {
        let at = self.position();
        let minus = self.is_sign("-");
        if !minus && !self.is_sign("+") {
            return self.postfix();
        }
        self.next();
        // Looser than a power, tighter than everything else.
        let operand = self.binary(Operator::Power.precedence())?;
        let kind = operand.kind();
        if !matches!(kind, Kind::Scalar | Kind::Vector) {
            let reason = format!(
                "unary expression only allowed on expressions of type scalar or instant vector, got {:?}",
                kind.name()
            );
            return Err(self.error_at(at, reason));
        }
        Ok(match operand {
            operand if !minus => operand,
            Expr::Number(number) => Expr::Number(-number),
            operand => Expr::Negative(Box::new(operand)),
        })
    }

    /// What may follow an operand: ranges, subqueries, `offset` and `@`.
    fn postfix(&mut self) -> Parsed<Expr> {
        let depth = self.depth;
        let start = self.position();
        let mut bare = !self.is_sign("(");
        let mut expr = self.primary()?;
        let (mut offset, mut at) = (false, false);
        loop {
            let here = self.position();
            if self.accept("[") {
                self.deeper()?;
                expr = self.bracket(expr, bare && !offset && !at, start, here)?;
                (bare, offset, at) = (true, false, false);
            } else if self.accept_word("offset") {
                let sign = if self.accept("-") { -1 } else { 1 };
                self.accept("+");
                let Token::Duration(length) = *self.peek() else {
                    return Err(self.unexpected("a duration"));
                };
                self.next();
                if std::mem::replace(&mut offset, true) {
                    return Err(self.error_at(here, "offset may not be set multiple times"));
                }
                let reason = "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery";
                let when = when(&mut expr).filter(|_| bare);
                when.ok_or_else(|| self.error_at(here, reason))?.offset_ms = sign * length;
            } else if self.accept("@") {
                let value = self.at_modifier()?;
                if std::mem::replace(&mut at, true) {
                    return Err(self.error_at(here, "@ <timestamp> may not be set multiple times"));
                }
                let reason = "@ modifier must be preceded by an instant vector selector or range vector selector or a subquery";
                let when = when(&mut expr).filter(|_| bare);
                when.ok_or_else(|| self.error_at(here, reason))?.at = Some(value);
            } else {
                self.depth = depth;
                return Ok(expr);
            }
        }
    }

    fn bracket(&mut self, expr: Expr, bare: bool, start: usize, here: usize) -> Parsed<Expr> {
        let range_at = self.position();
        let Token::Duration(range_ms) = *self.peek() else {
            return Err(self.unexpected("a duration"));
        };
        self.next();
        if range_ms == 0 {
            return Err(self.error_at(range_at, "duration must be greater than 0"));
        }
        if self.accept(":") {
            let step_at = self.position();
            let step_ms = match *self.peek() {
                Token::Duration(step) => Some(step),
                _ => None,
            };
            if step_ms.is_some() {
                self.next();
            }
            if step_ms == Some(0) {
                return Err(self.error_at(step_at, "duration must be greater than 0"));
            }
            self.expect("]")?;
            if expr.kind() != Kind::Vector && expr.kind() != Kind::Scalar {
                let reason = format!(
                    "subquery is only allowed on instant vector, got {:?} instead",
                    expr.kind().name()
                );
                return Err(self.error_at(start, reason));
            }
            if expr.kind() == Kind::Scalar {
                return Err(self.error_at(
                    start,
                    "subquery is only allowed on instant vector, got \"scalar\" instead",
                ));
            }
            let when = When::default();
            return Ok(Expr::Subquery(Box::new(Subquery { expr, range_ms, step_ms, when })));
        }
        self.expect("]")?;
        match expr {
            Expr::Selector(selector) if bare => Ok(Expr::Range(selector, range_ms)),
            Expr::Selector(_) => {
                Err(self.error_at(here, "no offset, @ or parentheses allowed before a range"))
            }
            _ => Err(self.error_at(here, "ranges only allowed for vector selectors")),
        }
    }

    fn at_modifier(&mut self) -> Parsed<At> {
        let here = self.position();
        for (word, at) in [("start", At::Start), ("end", At::End)] {
            if self.accept_word(word) {
                self.expect("(")?;
                self.expect(")")?;
                return Ok(at);
            }
        }
        let sign = if self.accept("-") { -1.0 } else { 1.0 };
        self.accept("+");
        let Token::Number(seconds) = *self.peek() else {
            return Err(self.unexpected("timestamp, start() or end()"));
        };
        self.next();
        let ms = (sign * seconds * 1000.0).round();
        if ms.is_nan() || ms.abs() > TIME_MS_MAX as f64 {
            return Err(self.error_at(here, "timestamp out of bounds for @ modifier"));
        }
        Ok(At::Time(ms as i64))
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let here = self.position();
        match self.peek().clone() {
            Token::Number(number) => {
                self.next();
                Ok(Expr::Number(number))
            }
            Token::Text(text) => {
                self.next();
                Ok(Expr::Text(text))
            }
            Token::Sign("(") => {
                self.next();
                let expr = self.binary(1)?;
                self.expect(")")?;
                Ok(expr)
            }
            Token::Sign("{") => self.selector(None, here),
            Token::Word(word) => {
                self.next();
                self.word(word, here)
            }
            _ => Err(self.unexpected("an expression")),
        }
    }

    fn word(&mut self, word: String, here: usize) -> Parsed<Expr> {
        let lower = word.to_ascii_lowercase();
        let aggregation =
            Aggregation::ALL.into_iter().find(|aggregation| aggregation.name() == lower);
        if let Some(aggregation) = aggregation
            && (self.is_sign("(") || self.is_word("by") || self.is_word("without"))
        {
            return self.aggregate(aggregation, here);
        }
        if self.is_sign("(") {
            let function = Function::named(&word);
            let reason = format!("unknown function with name {word:?}");
            return self.call(function.ok_or_else(|| self.error_at(here, reason))?, here);
        }
        match &*lower {
            "inf" => Ok(Expr::Number(f64::INFINITY)),
            "nan" => Ok(Expr::Number(f64::NAN)),
            "and" | "or" | "unless" | "atan2" | "bool" | "on" | "ignoring" | "group_left"
            | "group_right"
                if !self.is_sign("{") =>
            {
                Err(self.error_at(here, format!("unexpected {word:?}, expected an expression")))
            }
            _ => self.selector(Some(word), here),
        }
    }

    fn aggregate(&mut self, operation: Aggregation, here: usize) -> Parsed<Expr> {
        let mut grouping = self.grouping()?;
        let mut arguments = self.arguments()?;
        if grouping.is_none() {
            grouping = self.grouping()?;
        }
        let wanted = 1 + usize::from(operation.parameter().is_some());
        if arguments.len() != wanted {
            let reason = format!(
                "wrong number of arguments for aggregate expression provided, expected {wanted}, got {}",
                arguments.len()
            );
            return Err(self.error_at(here, reason));
        }
        let kind_error = |position, wanted: Kind, got: Kind| {
            let reason = format!(
                "expected type {} in aggregation {:?}, got {}",
                wanted.name(),
                operation.name(),
                got.name()
            );
            self.error_at(position, reason)
        };
        let (expr, position) = arguments.pop().expect("counted");
        if expr.kind() != Kind::Vector {
            return Err(kind_error(position, Kind::Vector, expr.kind()));
        }
        let mut parameter = None;
        if let (Some(kind), Some((expr, position))) = (operation.parameter(), arguments.pop()) {
            if expr.kind() != kind {
                return Err(kind_error(position, kind, expr.kind()));
            }
            parameter = Some(expr);
        }
        let grouping = grouping.unwrap_or_default();
        Ok(Expr::Aggregate(Box::new(Aggregate { operation, grouping, parameter, expr })))
    }

    fn grouping(&mut self) -> Parsed<Option<Grouping>> {
        let without = self.is_word("without");
        if !without && !self.is_word("by") {
            return Ok(None);
        }
        self.next();
        Ok(Some(Grouping { without, labels: self.label_list()? }))
    }

    fn call(&mut self, function: &'static Function, here: usize) -> Parsed<Expr> {
        let arguments = self.arguments()?;
        let (most, least) =
            (function.arguments.len(), function.arguments.len() - function.optional);
        let got = arguments.len();
        if got < least || (got > most && !function.repeated) {
            let bound = match (got < least, function.optional > 0) {
                (_, false) => "",
                (true, true) => " at least",
                (false, true) => " at most",
            };
            let wanted = if got < least { least } else { most };
            let reason = format!(
                "expected{bound} {wanted} argument(s) in call to {:?}, got {got}",
                function.name
            );
            return Err(self.error_at(here, reason));
        }
        for (index, (argument, position)) in arguments.iter().enumerate() {
            let wanted = function.arguments[index.min(most - 1)];
            if argument.kind() != wanted {
                let reason = format!(
                    "expected type {} in call to function {:?}, got {}",
                    wanted.name(),
                    function.name,
                    argument.kind().name()
                );
                return Err(self.error_at(*position, reason));
            }
        }
        Ok(Expr::Call(function, arguments.into_iter().map(|(argument, _)| argument).collect()))
    }

    /// In parentheses, each with its position.
    fn arguments(&mut self) -> Parsed<Vec<(Expr, usize)>> {
        let open = self.position();
        self.expect("(")?;
        let mut arguments = Vec::new();
        if self.accept(")") {
            return Ok(arguments);
        }
        loop {
            let position = self.position();
            if *self.peek() == Token::End {
                return Err(self.error_at(open, "unclosed left parenthesis"));
            }
            arguments.push((self.binary(1)?, position));
            if self.accept(")") {
                return Ok(arguments);
            }
            if *self.peek() == Token::End {
                return Err(self.error_at(open, "unclosed left parenthesis"));
            }
            if !self.accept(",") {
                return Err(self.unexpected("\",\" or \")\""));
            }
        }
    }

    fn label_list(&mut self) -> Parsed<Vec<String>> {
        self.expect("(")?;
        let mut labels = Vec::new();
        while !self.accept(")") {
            let Token::Word(label) = self.peek().clone() else {
                return Err(self.unexpected("a label"));
            };
            if !is_label_name(&label) {
                return Err(self.error(format!("{label:?} is not a label's name")));
            }
            self.next();
            labels.push(label);
            if !self.is_sign(")") {
                self.expect(",")?;
            }
        }
        Ok(labels)
    }

    fn selector(&mut self, name: Option<String>, here: usize) -> Parsed<Expr> {
        let mut matchers = Vec::new();
        if let Some(name) = &name {
            matchers
                .push(Matcher::new(NAME, Matching::Equal, name).expect("no regular expression"));
        }
        if self.accept("{") {
            while !self.accept("}") {
                matchers.push(self.matcher(name.is_some())?);
                if !self.is_sign("}") {
                    self.expect(",")?;
                }
            }
        }
        if matchers.iter().all(|matcher| matcher.matches("")) {
            let reason = "vector selector must contain at least one non-empty matcher";
            return Err(self.error_at(here, reason));
        }
        Ok(Expr::Selector(Selector { matchers, when: When::default() }))
    }

    fn matcher(&mut self, named: bool) -> Parsed<Matcher> {
        let here = self.position();
        let Token::Word(label) = self.peek().clone() else {
            return Err(self.unexpected("a label or \"}\""));
        };
        if !is_label_name(&label) {
            return Err(self.error(format!("{label:?} is not a label's name")));
        }
        if named && label == NAME {
            return Err(self.error_at(here, "metric name must not be set twice"));
        }
        self.next();
        let matching = match self.peek() {
            Token::Sign("=") => Matching::Equal,
            Token::Sign("!=") => Matching::NotEqual,
            Token::Sign("=~") => Matching::Regex,
            Token::Sign("!~") => Matching::NotRegex,
            _ => return Err(self.unexpected("one of =, !=, =~ or !~")),
        };
        self.next();
        let position = self.position();
        let Token::Text(value) = self.peek().clone() else {
            return Err(self.unexpected("a string"));
        };
        self.next();
        Matcher::new(&label, matching, &value).map_err(|reason| self.error_at(position, reason))
    }
}

fn when(expr: &mut Expr) -> Option<&mut When> {
    match expr {
        Expr::Selector(selector) | Expr::Range(selector, _) => Some(&mut selector.when),
        Expr::Subquery(subquery) => Some(&mut subquery.when),
        _ => None,
    }
}
