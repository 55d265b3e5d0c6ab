//! Decides which settings there are, by what names, and which one somebody may have meant. Knows no values.

/// A setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name: `--key` as a flag, `key` in the file, `TURNWISE_KEY` in the environment.
    pub key: &'static str,
    /// What its value looks like.
    pub kind: Kind,
}

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A text or a number.
    One,
    /// One or several texts: a list in the file, separated by commas elsewhere.
    Many,
    /// One or several URLs: a list in the file, separated by white space elsewhere (a comma may stand in a URL).
    Urls,
    /// True or false.
    Switch,
}

/// Every setting.
pub const SETTINGS: &[Setting] = &[
    Setting { key: "database-url", kind: Kind::Urls },
    Setting { key: "target", kind: Kind::Many },
    Setting { key: "target-host-header", kind: Kind::One },
    Setting { key: "allow-origin", kind: Kind::Many },
    Setting { key: "signing-key", kind: Kind::Many },
    Setting { key: "signing-key-file", kind: Kind::Many },
    Setting { key: "name", kind: Kind::One },
    Setting { key: "listen", kind: Kind::One },
    Setting { key: "listen-token", kind: Kind::One },
    Setting { key: "redact-header", kind: Kind::Many },
    Setting { key: "redact-key", kind: Kind::Many },
    Setting { key: "callback-url", kind: Kind::One },
    Setting { key: "period", kind: Kind::One },
    Setting { key: "capacity", kind: Kind::One },
    Setting { key: "queues", kind: Kind::Many },
    Setting { key: "drain-timeout", kind: Kind::One },
    Setting { key: "keep-succeeded", kind: Kind::One },
    Setting { key: "keep-dead", kind: Kind::One },
    Setting { key: "fail-fast", kind: Kind::Switch },
    Setting { key: "no-migrate", kind: Kind::Switch },
    Setting { key: "journal", kind: Kind::One },
    Setting { key: "log-format", kind: Kind::One },
];

impl Setting {
    /// The setting with this key.
    pub fn named(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }

    /// Its environment variable.
    pub fn variable(&self) -> String {
        format!("TURNWISE_{}", self.key.to_ascii_uppercase().replace('-', "_"))
    }
}

/// The setting whose key is nearest to `text`, if it is near: at most a third of it differs.
pub(super) fn nearest(text: &str) -> Option<&'static Setting> {
    let plain = text.to_ascii_lowercase().replace('_', "-");
    let near = SETTINGS.iter().min_by_key(|setting| distance(&plain, setting.key))?;
    (distance(&plain, near.key) <= (near.key.len() / 3).max(1)).then_some(near)
}

/// What to tell somebody who wrote a name that does not exist.
pub(super) fn hint(nearest: Option<&Setting>) -> String {
    match nearest {
        Some(setting) => format!("Did you mean {:?}?", setting.key),
        None => {
            let keys: Vec<_> = SETTINGS.iter().map(|setting| setting.key).collect();
            format!("The settings are {}", keys.join(", "))
        }
    }
}

/// Levenshtein's distance (1966): the least number of characters put in, left out or changed.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(text: &str) -> Option<&'static str> {
        nearest(text).map(|setting| setting.key)
    }

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        assert_eq!(guess("capcity"), Some("capacity"));
        assert_eq!(guess("database_url"), Some("database-url"));
        assert_eq!(guess("targets"), Some("target"));
        assert_eq!(guess("queue"), Some("queues"));
        assert_eq!(guess("colour"), None);
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }

    #[test]
    fn a_variable_is_named_after_its_key() {
        assert_eq!(Setting::named("drain-timeout").unwrap().variable(), "TURNWISE_DRAIN_TIMEOUT");
    }
}
