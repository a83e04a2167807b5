//! Text that is read from files and from standard input, within bounds.

use std::io::Read;

/// All of `from`, which must be text, and no longer than `what` may be.
pub fn read(from: impl Read, most: usize, what: &str) -> Result<String, String> {
    let mut bytes = Vec::new();
    from.take(most as u64 + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() > most {
        return Err(format!("is longer than the {most} bytes that {what} may have"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        format!("is not UTF-8 text, in line {}", line + 1)
    })
}
