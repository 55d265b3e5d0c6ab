//! Decides what of headers and bodies is shown: the values of headers that open something, and of the keys in JSON that somebody
//! named, are shown to nobody. What is stored, and what is sent, is not changed by it.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What is shown in place of a value.
pub const REDACTED: &str = "[redacted]";
/// Headers whose values are shown to nobody, whatever else is configured.
pub const REDACTED_HEADERS: [&str; 5] =
    ["authorization", "cookie", "set-cookie", "proxy-authorization", "x-api-key"];

/// Whose values are not shown. Its default is [`REDACTED_HEADERS`] and no key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redaction {
    /// In lower case, besides [`REDACTED_HEADERS`].
    headers: Arc<BTreeSet<String>>,
    /// In lower case.
    keys: Arc<BTreeSet<String>>,
}

impl Redaction {
    /// Headers besides [`REDACTED_HEADERS`], and keys of JSON objects at any depth: all whatever their case.
    pub fn new<S: AsRef<str>>(
        headers: impl IntoIterator<Item = S>,
        keys: impl IntoIterator<Item = S>,
    ) -> Self {
        let lower = |name: S| name.as_ref().to_lowercase();
        Self {
            headers: Arc::new(headers.into_iter().map(lower).collect()),
            keys: Arc::new(keys.into_iter().map(lower).collect()),
        }
    }

    /// What is shown of a header's value.
    pub fn header<'a>(&self, name: &str, value: &'a str) -> &'a str {
        let name = name.trim().to_lowercase();
        let is_secret =
            REDACTED_HEADERS.contains(&name.as_str()) || self.headers.contains(name.as_str());
        if is_secret { REDACTED } else { value }
    }

    /// What is shown of a body, or of the beginning of one: in JSON, and in lines of JSON, the values of the keys are replaced
    /// and nothing else is changed. What does not begin as a JSON object or array is shown as it is.
    pub fn body<'a>(&self, body: &'a [u8]) -> Cow<'a, [u8]> {
        // A byte order mark is no part of it.
        let begin = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
        let is_json = matches!(begin.trim_ascii_start().first(), Some(b'{' | b'['));
        if self.keys.is_empty() || !is_json {
            return Cow::Borrowed(body);
        }
        // It need not be whole: of an answer only the beginning is kept. So it is not parsed, but read from text to text.
        let mut shown = Vec::new();
        let (mut copied, mut at) = (0, 0);
        while let Some(found) = body.get(at..).and_then(|rest| rest.iter().position(|b| *b == b'"'))
        {
            let begin = at + found;
            at = end_of_text(body, begin);
            let colon = past_space(body, at);
            if body.get(colon) != Some(&b':') || !self.is_key(&body[begin..at]) {
                continue;
            }
            let value = past_space(body, colon + 1);
            at = end_of_value(body, value);
            shown.extend_from_slice(&body[copied..value]);
            shown.extend_from_slice(format!("\"{REDACTED}\"").as_bytes());
            copied = at;
        }
        if copied == 0 {
            return Cow::Borrowed(body);
        }
        shown.extend_from_slice(&body[copied..]);
        Cow::Owned(shown)
    }

    /// Whether a text, with its quotes, is one of the keys.
    fn is_key(&self, text: &[u8]) -> bool {
        let key = serde_json::from_slice::<String>(text);
        key.is_ok_and(|key| self.keys.contains(&key.to_lowercase()))
    }
}

fn past_space(body: &[u8], from: usize) -> usize {
    let rest = body.get(from..).unwrap_or_default();
    from + rest.iter().position(|b| !b.is_ascii_whitespace()).unwrap_or(rest.len())
}

/// Behind the text that begins here with its quote.
fn end_of_text(body: &[u8], begin: usize) -> usize {
    let mut at = begin + 1;
    while let Some(byte) = body.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    body.len()
}

/// Behind the value that begins here; of one that does not end, the end of all.
fn end_of_value(body: &[u8], begin: usize) -> usize {
    let (mut at, mut depth) = (begin, 0_usize);
    while let Some(byte) = body.get(at) {
        match byte {
            b'"' => at = end_of_text(body, at),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' if depth == 0 => return at,
            b'}' | b']' => {
                depth -= 1;
                at += 1;
            }
            b',' if depth == 0 => return at,
            _ => {
                at += 1;
                continue;
            }
        }
        if depth == 0 {
            return at;
        }
    }
    body.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(body: &str) -> String {
        let redaction = Redaction::new([], ["Password", "kärte"]);
        String::from_utf8(redaction.body(body.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn headers_that_open_something_are_not_shown_and_others_are() {
        let redaction = Redaction::new(["X-Tenant-Key"], []);
        for name in ["Authorization", "COOKIE", "set-cookie", "X-Api-Key", "x-tenant-KEY"] {
            assert_eq!(redaction.header(name, "s3cret"), REDACTED, "{name}");
        }
        assert_eq!(redaction.header("X-Tenant", "seven"), "seven");
        assert_eq!(Redaction::default().header("Proxy-Authorization", "s3cret"), REDACTED);
    }

    #[test]
    fn keys_are_redacted_at_any_depth_and_the_rest_stays_as_it_was() {
        for (body, told) in [
            (r#"{"password":"x","a":1.50}"#, r#"{"password":"[redacted]","a":1.50}"#),
            (r#"{"PASSWORD" :  7 , "a":1}"#, r#"{"PASSWORD" :  "[redacted]", "a":1}"#),
            (r#"{"a":[{"b":{"password":null}}]}"#, r#"{"a":[{"b":{"password":"[redacted]"}}]}"#),
            (
                r#"{"password":{"a":["}",{"b":"]"}]},"z":[1,2]}"#,
                r#"{"password":"[redacted]","z":[1,2]}"#,
            ),
            (
                r#"[{"password":true},{"password":[]}]"#,
                r#"[{"password":"[redacted]"},{"password":"[redacted]"}]"#,
            ),
            (
                r#"{"p\u0061ssword":"a\"b","KÄRTE":"x"}"#,
                r#"{"p\u0061ssword":"[redacted]","KÄRTE":"[redacted]"}"#,
            ),
            (
                "{\"password\":\"1\"}\n{\"password\":\"2\"}\n",
                "{\"password\":\"[redacted]\"}\n{\"password\":\"[redacted]\"}\n",
            ),
            // Of an answer only the beginning is kept.
            (r#"{"a":1,"password":"half of the se"#, r#"{"a":1,"password":"[redacted]""#),
            (r#"{"password":{"a":["half"#, r#"{"password":"[redacted]""#),
            (r#"{"password":"ends in \"#, r#"{"password":"[redacted]""#),
            (r#"{"password":"#, r#"{"password":"[redacted]""#),
            ("\u{feff}{\"password\":1}", "\u{feff}{\"password\":\"[redacted]\"}"),
        ] {
            assert_eq!(shown(body), told, "{body}");
        }
    }

    #[test]
    fn what_is_no_key_or_no_json_is_shown_as_it_is() {
        for body in [
            r#"{"a":"password","b":["password",":"],"passwords":1}"#,
            r#"{"a":"\"password\":1"}"#,
            "password=secret",
            r#"the "password": "x""#,
            r#"{"passw"#,
            "",
            r#"{"a":"unfinished \"#,
        ] {
            assert_eq!(shown(body), body);
        }
        let all = br#"{"password":1}"#;
        assert_eq!(Redaction::default().body(all), all.as_slice(), "nobody named a key");
        let odd = b"{\"\xff\":1,\"password\":\"\xfe\"}";
        let told = Redaction::new([], ["password"]).body(odd).into_owned();
        assert_eq!(told, b"{\"\xff\":1,\"password\":\"[redacted]\"}");
    }
}
