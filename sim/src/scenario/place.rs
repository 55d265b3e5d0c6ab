//! Decides where in a text a field stands.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// The line and column at which the value of a field begins, such as `faults[3].fault.ppm`, in a text that is JSON;
/// none: it has no such field.
pub(super) fn place(text: &str, field: &str) -> Option<(usize, usize)> {
    let mut value = text;
    for step in field.split(['.', '[']) {
        value = match step.strip_suffix(']') {
            Some(number) => {
                let number: usize = number.parse().ok()?;
                serde_json::from_str::<Vec<&RawValue>>(value).ok()?.get(number)?.get()
            }
            None => {
                serde_json::from_str::<BTreeMap<String, &RawValue>>(value).ok()?.get(step)?.get()
            }
        };
    }
    // The value is a part of the text.
    let before = text.get(..value.as_ptr() as usize - text.as_ptr() as usize)?;
    let line = before.rsplit('\n').next().unwrap_or_default();
    Some((before.matches('\n').count() + 1, line.chars().count() + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_where_it_stands() {
        let text = r#"{ "version": 1, "faults": [
            { "at": "1s", "fault": { "kind": "outage", "a\"b": "[{" } },
  { "at": "2s",
    "fault": { "kind": "server_slew", "ppm":
        7 } } ] }"#;
        assert_eq!(place(text, "version"), Some((1, 14)));
        assert_eq!(place(text, "faults"), Some((1, 27)));
        assert_eq!(place(text, "faults[0].at"), Some((2, 21)));
        assert_eq!(place(text, "faults[1].at"), Some((3, 11)));
        assert_eq!(place(text, "faults[1].fault.ppm"), Some((5, 9)));
        assert_eq!(place(text, "faults[2].at"), None);
        assert_eq!(place(text, "faults[1].fault.by"), None);
        assert_eq!(place(text, "fault[1"), None);
        assert_eq!(place("{", "version"), None);
    }
}
