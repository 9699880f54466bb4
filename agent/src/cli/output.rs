//! The one place that prints: text for people, JSON for programs, and nothing that a terminal obeys.

use std::fmt::Write as _;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};

use serde::Serialize;

use super::error::CliError;

/// How to print.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    json: bool,
    colour: bool,
}

/// What a piece of text means; shown as a colour on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// As it should be.
    Good,
    /// To be looked at.
    Doubtful,
    /// Wrong.
    Bad,
    /// Of less interest.
    Quiet,
    /// A heading.
    Strong,
    /// Nothing in particular.
    Plain,
}

/// A piece of text with its meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

/// Rows under headings, aligned.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    headings: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

impl Output {
    /// JSON if asked for; colours on a terminal, unless `NO_COLOR` says otherwise.
    pub(super) fn new(json: bool) -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            json,
            colour: !unwanted && io::stdout().is_terminal(),
        }
    }

    /// Whether JSON is wanted.
    pub(super) const fn json(self) -> bool {
        self.json
    }

    /// Prints a document: `value` as JSON, or `text` for people.
    pub(super) fn document<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(Painter) -> String,
    ) -> Result<(), CliError> {
        if self.json {
            let mut line = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
            line.push('\n');
            return raw(&line);
        }
        raw(&text(self.painter()))
    }

    /// Prints a JSON Schema, which is JSON for people too.
    pub(super) fn schema<T: Serialize>(self, schema: &T) -> Result<(), CliError> {
        Self { json: true, ..self }.document(schema, |_| String::new())
    }

    /// Prints a table.
    pub(super) fn table(self, table: &Table) -> Result<(), CliError> {
        raw(&table.render(self.painter()))
    }

    /// Prints rows of a stream in columns of fixed widths; a longer cell pushes the rest to the right.
    pub(super) fn fixed<const N: usize>(
        self,
        rows: impl IntoIterator<Item = [Cell; N]>,
        widths: &[usize; N],
    ) -> Result<(), CliError> {
        let mut text = String::new();
        for row in rows {
            render_row(&mut text, &row, widths, self.painter());
        }
        raw(&text)
    }

    const fn painter(self) -> Painter {
        Painter {
            colour: self.colour,
        }
    }
}

/// Puts colours around text, or leaves it alone.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Painter {
    colour: bool,
}

/// Prints what is printed as it is, whoever reads: a certificate, a schema, a record's line.
pub(super) fn raw(text: &str) -> Result<(), CliError> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()?;
    Ok(())
}

/// Says something beside the output, to the one who watches.
pub(super) fn note(text: &str) {
    complain(&format!("exeat: {}\n", safe(text)));
}

/// Asks the one who watches; yes is yes, and everything else is no.
pub(super) fn agreed(question: &str) -> Result<bool, CliError> {
    complain(&format!("{} [y/N] ", safe(question)));
    let mut answer = String::new();
    io::stdin().lock().take(1_024).read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes" | "Yes"))
}

/// Says why the command failed.
pub(super) fn error(error: &CliError) {
    if error.message.is_empty() {
        return;
    }
    complain(&complaint(error));
}

/// The sentence, or sentences one a line; those after the first stand in a little, so that no text within one looks
/// like another complaint.
pub(super) fn complaint(error: &CliError) -> String {
    let lines: Vec<String> = error.message.lines().map(safe).collect();
    let mut text = format!("exeat: {}\n", lines.join("\n  "));
    if let Some(next) = &error.next {
        text.push_str(&safe(next));
        text.push('\n');
    }
    text
}

fn complain(text: &str) {
    if let Err(error) = io::stderr().lock().write_all(text.as_bytes()) {
        tracing::debug!(%error, "nobody reads the errors");
    }
}

impl Painter {
    /// `text` in `tone`, harmless to a terminal.
    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        let text = safe(text);
        // ECMA-48, 8.3.117 (SGR).
        let code = match tone {
            Tone::Good => "32",
            Tone::Doubtful => "33",
            Tone::Bad => "31",
            Tone::Quiet => "2",
            Tone::Strong => "1",
            Tone::Plain => return text,
        };
        if self.colour {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text
        }
    }
}

impl Cell {
    /// With a meaning.
    pub(super) fn new(tone: Tone, text: impl Into<String>) -> Self {
        Self {
            text: safe(&text.into()),
            tone,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(Tone::Plain, text)
    }
}

impl Table {
    /// With these headings and no rows.
    pub(super) fn new<T: AsRef<str>>(headings: &[T]) -> Self {
        let headings = headings.iter().map(|text| text.as_ref().to_owned());
        Self {
            headings: headings.collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, a cell for each heading.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether there is no row.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The text: columns as wide as their widest cell, two spaces between them.
    pub(super) fn render(&self, painter: Painter) -> String {
        let mut widths: Vec<usize> = self.headings.iter().map(String::len).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        let mut text = String::new();
        let headings: Vec<Cell> = self
            .headings
            .iter()
            .map(|text| Cell::new(Tone::Strong, text.as_str()))
            .collect();
        let titled = self.headings.iter().any(|heading| !heading.is_empty());
        for row in titled.then_some(&headings).into_iter().chain(&self.rows) {
            render_row(&mut text, row, &widths, painter);
        }
        text
    }
}

fn render_row(text: &mut String, row: &[Cell], widths: &[usize], painter: Painter) {
    let last = row.len().saturating_sub(1);
    for (index, (cell, width)) in row.iter().zip(widths).enumerate() {
        text.push_str(&painter.paint(cell.tone, &cell.text));
        if index < last {
            let gap = width
                .saturating_sub(cell.text.chars().count())
                .saturating_add(2);
            text.extend(std::iter::repeat_n(' ', gap));
        }
    }
    // An empty last cell leaves the gap before it.
    text.truncate(text.trim_end_matches(' ').len());
    text.push('\n');
}

/// `text` without what a terminal would obey or show otherwise than it is: control characters, and
/// the marks that reverse or hide text (Unicode UAX #9, `Bidi_Control`, and zero width).
pub(super) fn safe(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if obeyed(character) {
            // Writing to a string cannot fail.
            write!(out, "{}", character.escape_unicode()).unwrap_or_default();
        } else {
            out.push(character);
        }
    }
    out
}

fn obeyed(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
        )
}
