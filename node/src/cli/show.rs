//! Decides how answers look: plain tables for people, one line of JSON for programs. Knows nothing of what
//! is in them.

use std::io::{self, Write};

use comfy_table::{Table, presets};
use serde::Serialize;

use super::failure::Failure;

/// What stands for nothing in a table.
pub(super) const NOTHING: &str = "-";

/// Write `text` and an end of line to stdout. A reader that went away (`| head`) is no error.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    print_if_read(text).map(|_| ())
}

/// The same; false when nobody reads it any more.
pub(super) fn print_if_read(text: &str) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => {
            Err(Failure::failed(format!("the answer cannot be written to stdout: {error}")))
        }
    }
}

/// Write `value` to stdout as one line of JSON.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    print(&json(value)?)
}

/// `value` as one line of JSON.
pub(super) fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value)
        .map_err(|error| Failure::failed(format!("the answer cannot be written as JSON: {error}")))
}

/// A table without lines and colours, so that it can be read, cut and searched alike.
pub(super) fn table<const N: usize>(header: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// `text` in one line, with control characters written out: what stands in the table must not drive the
/// terminal.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // The second group turns the direction of writing.
        let unseen =
            c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if unseen { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// The beginning of `text`, at most `chars` characters, in one line.
pub(super) fn shortened(text: &str, chars: usize) -> String {
    let text = printable(text);
    if text.chars().count() <= chars {
        return text;
    }
    text.chars().take(chars.saturating_sub(1)).chain(['…']).collect()
}

/// Whatever there is, or what stands for nothing.
pub(super) fn or_nothing(value: Option<impl ToString>) -> String {
    value.map_or_else(|| NOTHING.to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_plain_text() {
        let rows = vec![["a".to_owned(), "1".to_owned()], ["bcd".to_owned(), "22".to_owned()]];
        assert_eq!(table(["NAME", "N"], rows), "NAME  N\na     1\nbcd   22");
    }

    #[test]
    fn what_would_drive_a_terminal_is_written_out() {
        assert_eq!(printable("a\u{1b}[31mb\r\n"), "a\\u{1b}[31mb\\r\\n");
        assert_eq!(printable("grün\u{202e}x"), "grün\\u{202e}x");
        assert_eq!(shortened("abcdef", 4), "abc…");
        assert_eq!(shortened("abcd", 4), "abcd");
    }
}
