//! Text into tokens.

use super::SyntaxError;
use crate::limits::EXPRESSION_BYTES_MAX;

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Word(String),
    Number(f64),
    /// Milliseconds.
    Duration(i64),
    Text(String),
    /// `( ) { } [ ] , : @ + - * / % ^ = == != =~ !~ < > <= >=`
    Sign(&'static str),
    End,
}

impl Token {
    /// For 'unexpected ...'.
    pub fn shown(&self) -> String {
        match self {
            Token::Word(word) => format!("{word:?}"),
            Token::Number(number) => format!("number {number}"),
            Token::Duration(_) => "a duration".into(),
            Token::Text(text) => format!("string {text:?}"),
            Token::Sign(sign) => format!("{sign:?}"),
            Token::End => "end of input".into(),
        }
    }
}

/// All of them, each with its position, ending with [`Token::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<(Token, usize)>, SyntaxError> {
    if text.len() > EXPRESSION_BYTES_MAX {
        let reason =
            format!("the expression has {} bytes; {EXPRESSION_BYTES_MAX} are read", text.len());
        return Err(error(text, EXPRESSION_BYTES_MAX, reason));
    }
    let mut lexer = Lexer { text, at: 0, brackets: false };
    let mut list = Vec::new();
    loop {
        lexer.skip();
        let start = lexer.at;
        let token = lexer.next()?;
        let end = token == Token::End;
        list.push((token, start));
        if end {
            return Ok(list);
        }
    }
}

/// An error with line and column.
pub(super) fn error(text: &str, position: usize, reason: impl Into<String>) -> SyntaxError {
    let position = (0..=position.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    let position = position.unwrap_or(0);
    let before = &text[..position];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    SyntaxError {
        position,
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        reason: reason.into(),
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    /// Within `[...]`, where a colon is no part of a name.
    brackets: bool,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn byte(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    fn skip(&mut self) {
        loop {
            let blank = self.rest().len() - self.rest().trim_start().len();
            self.at += blank;
            if self.byte() != b'#' {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    fn next(&mut self) -> Result<Token, SyntaxError> {
        let start = self.at;
        let byte = self.byte();
        if start == self.text.len() {
            return Ok(Token::End);
        }
        if byte.is_ascii_digit()
            || (byte == b'.' && self.rest()[1..].starts_with(|c: char| c.is_ascii_digit()))
        {
            return self.number();
        }
        if matches!(byte, b'"' | b'\'' | b'`') {
            return self.string(byte);
        }
        let colon = !self.brackets;
        let name = move |c: char| c.is_ascii_alphanumeric() || c == '_' || (c == ':' && colon);
        if name(char::from(byte)) && !byte.is_ascii_digit() {
            let length = self.rest().find(|c| !name(c)).unwrap_or(self.rest().len());
            self.at += length;
            return Ok(Token::Word(self.text[start..self.at].to_owned()));
        }
        const SIGNS: [&str; 22] = [
            "==", "!=", "=~", "!~", "<=", ">=", "(", ")", "{", "}", "[", "]", ",", ":", "@", "+",
            "-", "*", "/", "%", "^", "=",
        ];
        let mut signs = SIGNS.into_iter().chain(["<", ">"]);
        let Some(sign) = signs.find(|sign| self.rest().starts_with(sign)) else {
            let character = self.rest().chars().next().unwrap_or(' ');
            return Err(error(self.text, start, format!("unexpected character {character:?}")));
        };
        self.at += sign.len();
        match sign {
            "[" => self.brackets = true,
            "]" => self.brackets = false,
            _ => {}
        }
        Ok(Token::Sign(sign))
    }

    fn number(&mut self) -> Result<Token, SyntaxError> {
        let start = self.at;
        let word = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_';
        let mut length = self.rest().find(|c| !word(c)).unwrap_or(self.rest().len());
        let hexadecimal = self.rest().starts_with("0x") || self.rest().starts_with("0X");
        // The sign of an exponent belongs to the number.
        let body = &self.rest()[..length];
        if !hexadecimal
            && body.ends_with(['e', 'E'])
            && self.rest()[length..].starts_with(['+', '-'])
        {
            let more = &self.rest()[length + 1..];
            let digits = more.find(|c: char| !c.is_ascii_digit()).unwrap_or(more.len());
            if digits > 0 {
                length += 1 + digits;
            }
        }
        let body = &self.text[start..start + length];
        self.at += length;
        if let Some(digits) = body.strip_prefix("0x").or(body.strip_prefix("0X")) {
            if let Ok(number) = i64::from_str_radix(digits, 16) {
                return Ok(Token::Number(number as f64));
            }
        } else if let Some(number) = octal(body) {
            return Ok(Token::Number(number));
        } else if let Some(duration) = duration(body) {
            return Ok(Token::Duration(duration));
        } else if !body.contains(|c: char| c.is_ascii_alphabetic() && c != 'e' && c != 'E')
            && let Ok(number) = body.parse::<f64>()
        {
            if number.is_infinite() {
                return Err(error(self.text, start, format!("{body} is beyond all numbers")));
            }
            return Ok(Token::Number(number));
        }
        Err(error(self.text, start, format!("bad number or duration syntax: {body:?}")))
    }

    fn string(&mut self, quote: u8) -> Result<Token, SyntaxError> {
        let start = self.at;
        let unterminated = || error(self.text, start, "unterminated quoted string");
        let mut bytes = Vec::new();
        let text = self.text.as_bytes();
        let mut at = start + 1;
        loop {
            let byte = *text.get(at).ok_or_else(unterminated)?;
            at += 1;
            if byte == quote {
                break;
            }
            if byte == b'\n' && quote != b'`' {
                return Err(unterminated());
            }
            if byte != b'\\' || quote == b'`' {
                bytes.push(byte);
                continue;
            }
            let escape = *text.get(at).ok_or_else(unterminated)?;
            at += 1;
            let (digits, radix) = match escape {
                b'x' => (2, 16),
                b'u' => (4, 16),
                b'U' => (8, 16),
                b'0'..=b'7' => (3, 8),
                _ => (0, 0),
            };
            if digits > 0 {
                let from = if radix == 8 { at - 1 } else { at };
                let code = self.text.get(from..from + digits);
                let code = code.and_then(|code| u32::from_str_radix(code, radix).ok());
                let escape_at = at - 2;
                let bad = || error(self.text, escape_at, "bad escape sequence in a string");
                let code = code.ok_or_else(bad)?;
                at = from + digits;
                if matches!(escape, b'u' | b'U') {
                    let character = char::from_u32(code).ok_or_else(bad)?;
                    bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                } else {
                    bytes.push(u8::try_from(code).map_err(|_| bad())?);
                }
                continue;
            }
            bytes.push(match escape {
                b'a' => 7,
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 11,
                b'\\' => b'\\',
                other if other == quote => quote,
                _ => return Err(error(self.text, at - 2, "unknown escape sequence in a string")),
            });
        }
        self.at = at;
        let text = String::from_utf8(bytes);
        text.map(Token::Text).map_err(|_| error(self.text, start, "the string is not UTF-8"))
    }
}

/// `1h30m` in milliseconds: each unit at most once, the larger first.
pub(super) fn duration(text: &str) -> Option<i64> {
    const UNITS: [(&str, i64); 7] = [
        ("y", 365 * 86_400_000),
        ("w", 7 * 86_400_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ];
    let (mut rest, mut total, mut next) = (text, 0i64, 0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|digits| *digits > 0)?;
        let number: i64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let length = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = next + UNITS[next..].iter().position(|(name, _)| *name == &rest[..length])?;
        total = total.checked_add(number.checked_mul(UNITS[unit].1)?)?;
        (rest, next) = (&rest[length..], unit + 1);
    }
    // A thousand years: sums with times stay far from overflow.
    (next > 0 && total <= 1000 * UNITS[0].1).then_some(total)
}

/// Whole numbers that begin with 0 are octal, as in Go, if their digits are.
fn octal(body: &str) -> Option<f64> {
    let digits = body.strip_prefix('0')?;
    i64::from_str_radix(digits, 8).ok().map(|number| number as f64)
}
