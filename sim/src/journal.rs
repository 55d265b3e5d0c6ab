//! Decides how the file of a node's journal is read, and written by a simulator. A node that was killed leaves half a line
//! at its end, or nothing.

use turnwise_engine::journal::{Entry, Header};

/// A journal as the text of its file.
///
/// # Errors
/// What of it cannot be written as JSON: nothing of what an engine is told or asks for.
pub fn text(header: &Header, entries: &[Entry]) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string(header)?;
    text.push('\n');
    for entry in entries {
        text.push_str(&serde_json::to_string(entry)?);
        text.push('\n');
    }
    Ok(text)
}

/// What a journal begins with; none: this text is no journal, or one whose node was killed as it began.
pub fn header(text: &str) -> Option<Header> {
    serde_json::from_str(text.lines().next()?).ok()
}

/// All that follows the header.
///
/// # Errors
/// The number of the first line that is no entry, from 1, and what is wrong with it.
pub fn entries(text: &str) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    let mut lines = text.lines().enumerate().skip(1);
    while let Some((number, line)) = lines.next() {
        match serde_json::from_str(line) {
            Ok(entry) => entries.push(entry),
            Err(error) if error.is_eof() && lines.clone().next().is_none() => break,
            Err(error) => return Err(format!("line {}: {error}", number + 1)),
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use turnwise_engine::journal::VERSION;
    use turnwise_engine::{Input, LocalInstant, NodeId};

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let written = Header {
            version: VERSION,
            id: NodeId::from_u128(7),
            capacity: 4,
            seed: 3,
            now: LocalInstant::from_nanos(1),
            node: "desk".to_owned(),
        };
        let wake = Entry::Input { at: LocalInstant::from_nanos(3), input: Input::Wake };
        let all = [wake, Entry::End];
        let text = text(&written, &all).unwrap();
        assert_eq!((header(&text), entries(&text)), (Some(written), Ok(all.to_vec())));
    }

    #[test]
    fn half_a_line_at_the_end_is_left_out_and_one_in_the_middle_is_named() {
        let wake = Entry::Input { at: LocalInstant::from_nanos(3), input: Input::Wake };
        let line = serde_json::to_string(&wake).unwrap();
        let half = &line[..line.len() / 2];
        assert_eq!(entries(&format!("header\n{line}\n{half}")), Ok(vec![wake]));
        let error = entries(&format!("header\n{half}\n{line}")).unwrap_err();
        assert!(error.starts_with("line 2: "), "{error}");
        assert_eq!((header(""), header(half)), (None, None));
    }
}
