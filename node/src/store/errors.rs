//! What went wrong below a store, before it is known to which database that happened. The words for
//! people are made by each store.

use std::fmt;

use turnwise_engine::Fate;

use crate::batch::BatchRefusal;

/// An error inside a store.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The driver or the database said so.
    Sql(sqlx::Error),
    /// A value that no version of this program writes.
    Corrupt(String),
    /// Another server was chosen meanwhile.
    Replaced(Fate),
    /// A batch does not do.
    Batch(BatchRefusal),
}

/// What is said of a statement whose server is not the chosen one any more.
pub(super) const REPLACED: &str = "another server has taken over";

impl Trouble {
    pub(super) fn corrupt(what: String) -> Self {
        Self::Corrupt(what)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sql(error) => error.fmt(f),
            Self::Corrupt(what) => f.write_str(what),
            Self::Replaced(_) => f.write_str(REPLACED),
            Self::Batch(refusal) => refusal.fmt(f),
        }
    }
}

impl From<BatchRefusal> for Trouble {
    fn from(refusal: BatchRefusal) -> Self {
        Self::Batch(refusal)
    }
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
                Self::Corrupt(error.to_string())
            }
            error => Self::Sql(error),
        }
    }
}

/// Parameters of a URL whose values may be shown.
const SHOWN: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "ssl-ca",
    "socket",
    "charset",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "application_name",
    "sslrootcert",
    "target_session_attrs",
    "pooler",
    "mode",
    "cache",
    "immutable",
    "vfs",
];

/// The URL as it may be shown: without its password, and without what a parameter that nobody knows may hold.
pub(super) fn without_password(url: &str) -> String {
    let Ok(mut parsed) = url::Url::parse(url) else {
        // What cannot be parsed may hold a password anywhere.
        return match url.split_once(':') {
            Some((scheme, _)) => format!("{scheme}://***"),
            None => "***".to_owned(),
        };
    };
    if parsed.cannot_be_a_base() {
        return format!("{}:***", parsed.scheme());
    }
    let in_query = parsed.query_pairs().any(|(key, _)| !SHOWN.contains(&&*key));
    if parsed.password().is_none() && !in_query {
        return url.to_owned();
    }
    if parsed.password().is_some() && parsed.set_password(Some("***")).is_err() {
        return format!("{}://***", parsed.scheme());
    }
    if in_query {
        let pairs: Vec<_> = parsed.query_pairs().into_owned().collect();
        let shown = pairs.iter().map(|(key, value)| {
            (key.as_str(), if SHOWN.contains(&key.as_str()) { value.as_str() } else { "***" })
        });
        parsed.query_pairs_mut().clear().extend_pairs(shown);
    }
    parsed.to_string()
}

#[cfg(test)]
mod tests {
    use super::without_password;

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(without_password("postgres://u:p%40w@h/d"), "postgres://u:***@h/d");
        assert_eq!(without_password("postgres://u@h/d"), "postgres://u@h/d");
        assert_eq!(without_password("sqlite://turnwise.db"), "sqlite://turnwise.db");
        assert_eq!(without_password("postgres://u:se@cret@h:x/d"), "postgres://***");
        assert_eq!(without_password("postgres://h:x/d?password=geheim"), "postgres://***");
        assert_eq!(without_password("mysql:u:geheim@h/d"), "mysql:***");
        for key in ["password", "passwort", "token", "options"] {
            let url = format!("postgres://h/d?sslmode=require&{key}=geheim");
            let shown = without_password(&url);
            assert!(shown.contains("sslmode=require") && !shown.contains("geheim"), "{shown}");
        }
        assert_eq!(without_password("sqlite://t.db?mode=ro"), "sqlite://t.db?mode=ro");
    }
}
