//! Pictures out of letters, and numbers that people can read.

/// Eighths of a letter, upwards.
const COLUMNS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Eighths of a letter, to the right.
const PARTS: [char; 8] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];
/// From nothing to much.
const SHADES: [char; 5] = ['·', '░', '▒', '▓', '█'];

/// A letter for each value: the highest is `high` and more, the lowest `low` and less; a gap where there is none.
pub fn sparkline(values: &[Option<f64>], low: f64, high: f64) -> String {
    let letter = |value: &Option<f64>| match value.filter(|value| !value.is_nan()) {
        None => ' ',
        Some(_) if high <= low => COLUMNS[0],
        Some(value) => pick(&COLUMNS, (value - low) / (high - low)),
    };
    values.iter().map(letter).collect()
}

/// A bar that is a part of `width` letters long. What is not nothing can be seen.
pub fn bar(part: f64, width: usize) -> String {
    let eighths = (part.clamp(0.0, 1.0) * (width * 8) as f64).round() as usize;
    let eighths = if part > 0.0 { eighths.max(1) } else { 0 };
    let mut bar = PARTS[7].to_string().repeat(eighths / 8);
    if eighths % 8 > 0 {
        bar.push(PARTS[eighths % 8 - 1]);
    }
    bar
}

/// A letter for a part of a whole: empty for nothing, and never for something.
pub fn shade(part: f64) -> char {
    if part > 0.0 { pick(&SHADES[1..], part) } else { SHADES[0] }
}

fn pick(letters: &[char], part: f64) -> char {
    let place = (part.clamp(0.0, 1.0) * letters.len() as f64) as usize;
    letters[place.min(letters.len() - 1)]
}

/// `count` values out of more: the largest of those that come together. As they are if they are few.
pub fn squeeze(values: &[Option<f64>], count: usize) -> Vec<Option<f64>> {
    if values.len() <= count || count == 0 {
        return values.to_vec();
    }
    let largest = |piece: &[Option<f64>]| piece.iter().flatten().copied().reduce(f64::max);
    let bounds = (0..=count).map(|place| place * values.len() / count);
    let bounds: Vec<usize> = bounds.collect();
    bounds.windows(2).map(|pair| largest(&values[pair[0]..pair[1]])).collect()
}

/// A number with four digits that mean something: `0.1235`, `1532`, `1.53e9`.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || !value.is_finite() {
        return if value.is_infinite() {
            (if value > 0.0 { "+Inf" } else { "-Inf" }).into()
        } else {
            format!("{value}")
        };
    }
    if !(1e-4..1e15).contains(&size) {
        return format!("{value:.2e}");
    }
    let places = (3 - size.log10().floor() as i32).clamp(0, 7) as usize;
    let text = format!("{value:.places$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// A time in the unit that fits: `340ns`, `1.2ms`, `15s`.
pub fn seconds(value: f64) -> String {
    let size = value.abs();
    let (factor, unit) = match size {
        _ if !value.is_finite() => return number(value),
        _ if size == 0.0 => return "0".into(),
        _ if size < 999.5e-9 => (1e9, "ns"),
        _ if size < 999.5e-6 => (1e6, "us"),
        _ if size < 0.9995 => (1e3, "ms"),
        _ => (1.0, "s"),
    };
    let value = value * factor;
    let places = if value.abs() < 9.95 { 1 } else { 0 };
    let text = format!("{value:.places$}");
    format!("{}{unit}", text.strip_suffix(".0").unwrap_or(&text))
}

/// A part of a whole: `4.2 %`, `38 %`.
pub fn percent(part: f64) -> String {
    let percent = part * 100.0;
    if percent != 0.0 && percent.abs() < 9.95 {
        format!("{percent:.1} %")
    } else {
        format!("{percent:.0} %")
    }
}

#[cfg(test)]
mod tests;
