//! Percent-encoding, queries and forms.

use fabric::job::nearest;

use super::doc::Parameter;

/// Undoes percent-encoding (RFC 3986, section 2.1); `None` when it is malformed or not UTF-8.
pub fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |at: usize| rest.get(at).and_then(|digit| (*digit as char).to_digit(16));
        bytes.push((digit(0)? * 16 + digit(1)?) as u8);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

/// Reads the pairs of a query string or a form (application/x-www-form-urlencoded), whatever their names.
///
/// # Errors
/// Says which pair cannot be read.
pub fn form(text: &str) -> Result<Vec<(String, String)>, String> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let read = |text: &str| decode(&text.replace('+', " "));
            read(name).zip(read(value)).ok_or_else(|| {
                let shown: String = pair.chars().take(80).collect();
                format!("{shown:?} is not percent-encoded UTF-8")
            })
        })
        .collect()
}

/// Reads a query string whose parameters must all be `known`.
///
/// # Errors
/// Says which parameter is wrong and what it should be.
pub fn query(text: &str, known: &[Parameter]) -> Result<Vec<(String, String)>, String> {
    let mut parameters: Vec<(String, String)> = Vec::new();
    for (name, value) in form(text)? {
        let names = || known.iter().map(|parameter| parameter.name);
        if !names().any(|known| known == name) {
            return Err(match nearest(&name, names()) {
                Some(near) => format!("unknown parameter {name:?}: did you mean {near:?}?"),
                None if known.is_empty() => {
                    format!("unknown parameter {name:?}: this path has none")
                }
                None => {
                    let names = names().collect::<Vec<_>>().join(", ");
                    format!("unknown parameter {name:?}: there are {names}")
                }
            });
        }
        if parameters.iter().any(|(other, _)| *other == name) {
            return Err(format!("parameter {name:?} is there twice"));
        }
        parameters.push((name, value));
    }
    Ok(parameters)
}

#[cfg(test)]
mod tests;
