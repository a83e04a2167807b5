//! What people and programs see: data on stdout, chatter on stderr, colour only beside words.

use serde::Serialize;
use std::io::{self, IsTerminal, Write};

use crate::exit::Failure;

/// What kind of answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned text for people.
    Table,
    /// The same with every column, however wide that is.
    Wide,
    /// JSON for programs: one document, or one a line where the answer is a stream.
    Json,
    /// The same as JSON, in YAML: one document, or one after each `---` where the answer is a stream.
    Yaml,
    /// One name a line, for scripts: of nodes, jobs, slots, tokens and quotas.
    Name,
}

/// What a word means; shown as colour where there is any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing special.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// On its way.
    Busy,
    /// Look at this.
    Bad,
    /// Beside the point.
    Faint,
}

/// Text and what it means.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// Text that means something.
    pub fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: printable(&text.into()), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Cell::new(text, Tone::Plain)
    }
}

/// The two streams and what they can show.
#[derive(Clone, Copy)]
pub struct Screen {
    /// What kind of answer is wanted.
    pub format: Format,
    stdout_colour: bool,
    stderr_colour: bool,
    /// Somebody sits there and can be asked.
    pub interactive: bool,
    /// Stderr can show a line that changes.
    pub live: bool,
    /// Only data, questions and what went wrong are shown.
    quiet: bool,
}

impl Screen {
    /// Looks at the streams and at `NO_COLOR` and `TERM`.
    pub fn new(format: Format) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let stderr = io::stderr().is_terminal();
        Self {
            format,
            stdout_colour: io::stdout().is_terminal() && !plain && !dumb,
            stderr_colour: stderr && !plain && !dumb,
            interactive: stderr && io::stdin().is_terminal(),
            live: stderr && !dumb,
            quiet: false,
        }
    }

    /// The same, and with `quiet` without chatter.
    pub fn quiet(self, quiet: bool) -> Self {
        Self { quiet, live: self.live && !quiet, ..self }
    }

    /// Whether every column is wanted.
    pub fn is_wide(&self) -> bool {
        self.format == Format::Wide
    }

    /// Data: one name a line, if that is what is wanted. True: that was all.
    pub fn names<N: std::fmt::Display>(
        &self,
        names: impl IntoIterator<Item = N>,
    ) -> Result<bool, Failure> {
        let wanted = self.format == Format::Name;
        if wanted {
            let lines = names.into_iter().map(|name| format!("{}\n", printable(&name.to_string())));
            self.bytes(lines.collect::<String>().as_bytes())?;
        }
        Ok(wanted)
    }

    /// Whether a program reads the answer, as JSON or as YAML.
    pub fn is_json(&self) -> bool {
        matches!(self.format, Format::Json | Format::Yaml)
    }

    /// Data: a line on stdout.
    pub fn data(&self, line: &str) -> Result<(), Failure> {
        self.bytes(format!("{line}\n").as_bytes())
    }

    /// Data: bytes on stdout, as they are.
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::NobodyReads,
            _ => Failure::failed(format!("cannot write to stdout: {error}")),
        })
    }

    /// Data: a document on stdout, as JSON or as YAML.
    pub fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = match self.format {
            Format::Yaml => return self.bytes(yaml(value)?.as_bytes()),
            _ => serde_json::to_string_pretty(value),
        };
        self.data(&text.map_err(|error| Failure::failed(error.to_string()))?)
    }

    /// Data: one of several documents on stdout: JSON in a line, YAML below `---`.
    pub fn json_line(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = match self.format {
            Format::Yaml => return self.bytes(format!("---\n{}", yaml(value)?).as_bytes()),
            _ => serde_json::to_string(value),
        };
        self.data(&text.map_err(|error| Failure::failed(error.to_string()))?)
    }

    /// Data: a table on stdout.
    pub fn table(&self, table: &Table) -> Result<(), Failure> {
        self.bytes(self.text(table).as_bytes())
    }

    /// A line as it looks on stdout when it means something.
    pub fn painted(&self, text: &str, tone: Tone) -> String {
        paint(text, tone, self.stdout_colour)
    }

    /// A table as [`Screen::table`] shows it: on a terminal without the columns that have no room.
    pub fn text(&self, table: &Table) -> String {
        let narrow = self.size().filter(|_| !self.is_wide());
        let fitted = narrow.and_then(|(columns, _)| table.fitted(columns));
        fitted.as_ref().unwrap_or(table).render(self.stdout_colour)
    }

    /// Columns and rows of the terminal that stdout is, if it is one.
    pub fn size(&self) -> Option<(usize, usize)> {
        let stdout = io::stdout();
        let size = rustix::termios::tcgetwinsize(&stdout).ok()?;
        (stdout.is_terminal() && size.ws_col > 0 && size.ws_row > 0)
            .then(|| (size.ws_col.into(), size.ws_row.into()))
    }

    /// Chatter: a table on stderr.
    pub fn say_table(&self, table: &Table) {
        self.say_raw(&table.render(self.stderr_colour));
    }

    /// Chatter: a line on stderr. Nobody has to read it.
    pub fn say(&self, line: &str) {
        self.say_raw(&format!("{line}\n"));
    }

    /// Chatter: a line on stderr with a meaning.
    pub fn say_toned(&self, tone: Tone, line: &str) {
        self.say_raw(&format!("{}\n", paint(line, tone, self.stderr_colour)));
    }

    /// What went wrong: a line on stderr, which is there in any case.
    pub fn complain(&self, line: &str) {
        self.write(&format!("{}\n", paint(line, Tone::Bad, self.stderr_colour)));
    }

    fn say_raw(&self, text: &str) {
        if !self.quiet {
            self.write(text);
        }
    }

    fn write(&self, text: &str) {
        let _ = io::stderr().write_all(text.as_bytes());
    }

    /// Data: `name  value` lines on stdout.
    pub fn fields(&self, fields: &[(&str, Cell)]) -> Result<(), Failure> {
        let mut table = Table::new(&[]);
        for (name, value) in fields {
            table.row([Cell::new(*name, Tone::Faint), value.clone()]);
        }
        self.table(&table)
    }

    /// Shows `line` in place of the last one that this showed.
    pub fn replace_line(&self, line: &str) {
        if self.live {
            // Without automatic wrapping, so that a long line stays one line.
            self.say_raw(&format!("\r\x1b[K\x1b[?7l{line}\x1b[?7h"));
        }
    }

    /// Takes away what [`Screen::replace_line`] showed.
    pub fn clear_line(&self) {
        if self.live {
            self.say_raw("\r\x1b[K");
        }
    }

    /// Shows a question that is answered on the same line.
    pub fn ask(&self, question: &str) {
        self.write(&format!("{question} [y/N] "));
    }

    /// Whether there is somebody to ask.
    pub fn is_interactive(&self) -> bool {
        self.interactive
    }
}

/// Rows of cells in aligned columns.
pub struct Table {
    rows: Vec<Vec<Cell>>,
    /// Columns that are left out where there is no room, the first one first.
    less: &'static [&'static str],
}

impl Table {
    /// A table with a head, or none.
    pub fn new(head: &[&str]) -> Self {
        let head: Vec<Cell> = head.iter().map(|name| Cell::new(*name, Tone::Faint)).collect();
        Self { rows: if head.is_empty() { Vec::new() } else { vec![head] }, less: &[] }
    }

    /// The same, of which these columns are left out where there is no room, the first one first.
    pub fn without(self, less: &'static [&'static str]) -> Self {
        Self { less, ..self }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.rows.push(cells.into());
    }

    /// Adds a row of as many cells as there are.
    pub fn row_of(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.text.chars().count()).max().unwrap_or(0)
        };
        (0..columns).map(width).collect()
    }

    /// What of it fits into so many columns of a terminal; `None`: all of it, or none of it may be left out.
    fn fitted(&self, room: usize) -> Option<Table> {
        let mut table: Option<Table> = None;
        for name in self.less {
            let now = table.as_ref().unwrap_or(self);
            let widths = now.widths();
            if widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1) <= room {
                break;
            }
            let head = now.rows.first()?;
            let Some(at) = head.iter().position(|cell| cell.text == *name) else { continue };
            let mut rows = now.rows.clone();
            rows.iter_mut().filter(|row| row.len() > at).for_each(|row| drop(row.remove(at)));
            table = Some(Table { rows, less: self.less });
        }
        table
    }

    fn render(&self, colour: bool) -> String {
        let widths = self.widths();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if index > 0 {
                    line.push_str("  ");
                }
                line.push_str(&paint(&cell.text, cell.tone, colour));
                if row[index + 1..].iter().any(|cell| !cell.text.is_empty()) {
                    line.extend(std::iter::repeat_n(' ', width - cell.text.chars().count()));
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

fn paint(text: &str, tone: Tone, colour: bool) -> String {
    let code = match tone {
        Tone::Good => "32",
        Tone::Busy => "33",
        Tone::Bad => "31",
        Tone::Faint => "2",
        Tone::Plain => "",
    };
    if colour && !code.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.into() }
}

/// A document in YAML, with the end of its last line.
fn yaml(value: &impl Serialize) -> Result<String, Failure> {
    // By way of JSON, so that both say the same.
    let value = serde_json::to_value(value).map_err(|error| Failure::failed(error.to_string()))?;
    let text =
        serde_saphyr::to_string(&value).map_err(|error| Failure::failed(error.to_string()))?;
    Ok(format!("{}\n", text.trim_end_matches('\n')))
}

/// `1 slot`, `2 slots`.
pub fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// `text` without anything that could move a terminal's cursor: names and reasons come from afar.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests;
