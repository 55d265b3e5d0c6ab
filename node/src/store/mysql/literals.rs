//! Writes values as SQL literals, for statements that go out together in one packet, which the protocol of prepared
//! statements does not allow. Decides nothing: a text is written in hexadecimal digits, so that nothing in it can
//! end the literal, whatever the session's settings.

use std::fmt::Write;

use turnwise_engine::{NodeId, ServerInstant};

use crate::rfc3339;

const NULL: &str = "NULL";

/// A text.
pub(super) fn text(text: &str) -> String {
    format!("_utf8mb4 {}", bytes(text.as_bytes()))
}

/// A text, or none.
pub(super) fn text_or_null(value: Option<&str>) -> String {
    value.map_or(NULL.to_owned(), text)
}

/// Bytes.
pub(super) fn bytes(bytes: &[u8]) -> String {
    let mut literal = String::with_capacity(2 * bytes.len() + 3);
    literal.push_str("x'");
    for byte in bytes {
        // Writing to a string never fails.
        let _ = write!(literal, "{byte:02x}");
    }
    literal.push('\'');
    literal
}

/// Bytes, or none.
pub(super) fn bytes_or_null(value: Option<&[u8]>) -> String {
    value.map_or(NULL.to_owned(), bytes)
}

/// A whole number, or none.
pub(super) fn number_or_null(value: Option<i64>) -> String {
    value.map_or(NULL.to_owned(), |value| value.to_string())
}

/// An instant, given in microseconds since the Unix epoch.
pub(super) fn instant(micros: i64) -> String {
    let text = rfc3339::format(ServerInstant::from_micros(micros));
    format!("TIMESTAMP'{}'", text.trim_end_matches('Z').replace('T', " "))
}

/// The id of a node.
pub(super) fn node(node: NodeId) -> String {
    format!("'{node}'")
}

/// Texts, as what stands behind `IN`; never empty, since SQL knows no empty list.
pub(super) fn list<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let texts: Vec<String> = texts.into_iter().map(text).collect();
    if texts.is_empty() { format!("({NULL})") } else { format!("({})", texts.join(", ")) }
}

/// The text that hexadecimal digits, as the function HEX() of the server writes them, stand for. None when they
/// are none.
pub(super) fn from_hex(digits: &str) -> Option<String> {
    String::from_utf8(bytes_from_hex(digits)?).ok()
}

/// The bytes that hexadecimal digits stand for. None when they are none.
pub(super) fn bytes_from_hex(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_ends_its_literal() {
        assert_eq!(text("a'b\\"), "_utf8mb4 x'6127625c'");
        assert_eq!(text(""), "_utf8mb4 x''");
        assert_eq!(list(["ü", "a"]), "(_utf8mb4 x'c3bc', _utf8mb4 x'61')");
        assert_eq!(list([]), "(NULL)");
        assert_eq!(from_hex("C3BC61").as_deref(), Some("üa"));
        assert_eq!((from_hex("FF"), from_hex("X1"), from_hex("123")), (None, None, None));
    }

    #[test]
    fn instants_are_written_in_utc_with_all_their_digits() {
        assert_eq!(instant(1_700_000_000_000_250), "TIMESTAMP'2023-11-14 22:13:20.000250'");
        assert_eq!(instant(-1), "TIMESTAMP'1969-12-31 23:59:59.999999'");
        assert_eq!(instant(i64::MAX), "TIMESTAMP'2262-04-11 23:47:16.854775'");
    }
}
