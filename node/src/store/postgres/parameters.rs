//! Decides which parameters the URL of a PostgreSQL database may carry. The driver passes over what it does not
//! know and writes it to the log with its value: a misspelt `sslmode` would connect without what it asks for,
//! and a secret would stand in the log.

use url::Url;

use crate::store::StoreError;
use crate::store::errors::without_password;
use crate::store::tls;

/// Parameters that the driver knows.
const KNOWN: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
    "statement-cache-capacity",
];

/// Parameters of libpq (PostgreSQL documentation, section 34.1.2) that an app's URL may carry and that mean
/// nothing to a node, which has its own: they are passed over.
const PASSED_OVER: &[&str] = &[
    "client_encoding",
    "connect_timeout",
    "fallback_application_name",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "target_session_attrs",
    "tcp_user_timeout",
];

/// Parameters of this program's own: whether a pooler in transaction mode is in the way, and what Prisma calls that.
const POOLER: [&str; 2] = ["pooler", "pgbouncer"];

/// What a URL says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The URL with those parameters alone that the driver knows.
    pub(super) url: String,
    /// A pooler that gives each transaction another session is in the way.
    pub(super) pooler: bool,
}

/// Parameters by their names.
type Pairs = [(String, String)];

/// Sort the parameters of a URL. Fails when it has one that nobody knows, or such as would not do what they seem to.
pub(super) fn known(url: &str) -> Result<Known, StoreError> {
    // What cannot be read here is told by the driver.
    let Ok(mut parsed) = Url::parse(url) else {
        return Ok(Known { url: url.to_owned(), pooler: false });
    };
    let bad = |reason| StoreError::BadUrl { url: without_password(url), reason };
    let is_known = |key: &str| KNOWN.contains(&key) || key.starts_with("options[");
    let is_named = |key: &str| PASSED_OVER.contains(&key) || POOLER.contains(&key);
    let pairs: Vec<(String, String)> = parsed.query_pairs().into_owned().collect();
    if let Some((key, _)) = pairs.iter().find(|(key, _)| !is_known(key) && !is_named(key)) {
        return Err(bad(format!(
            "there is no parameter {key:?} for this; leave it out, or write it as one of {}, pooler",
            KNOWN.join(", ")
        )));
    }
    let pooler = pooler(&pairs).map_err(bad)?;
    if let Some(wrong) = wrong_tls(&pairs) {
        return Err(bad(wrong));
    }
    if pairs.iter().all(|(key, _)| is_known(key)) {
        return Ok(Known { url: url.to_owned(), pooler });
    }
    let kept: Vec<_> = pairs.iter().filter(|(key, _)| is_known(key)).collect();
    if kept.is_empty() {
        parsed.set_query(None);
    } else {
        parsed.query_pairs_mut().clear().extend_pairs(kept.iter().map(|(key, value)| (key, value)));
    }
    Ok(Known { url: parsed.into(), pooler })
}

/// Whether a pooler is in the way.
fn pooler(pairs: &Pairs) -> Result<bool, String> {
    let mut pooler = false;
    for (key, value) in pairs.iter().filter(|(key, _)| POOLER.contains(&key.as_str())) {
        pooler = match (key.as_str(), value.as_str()) {
            ("pooler", "transaction") | ("pgbouncer", "true") => true,
            ("pooler", "session") | ("pgbouncer", "false") => false,
            _ => {
                return Err(format!(
                    "{key} is neither pooler=transaction (each transaction has another session) nor pooler=session"
                ));
            }
        };
    }
    let options = |(key, _): &(String, String)| key == "options" || key.starts_with("options[");
    if pooler && pairs.iter().any(options) {
        return Err("a pooler in transaction mode takes no options; set them for the role (ALTER ROLE … SET …)".to_owned());
    }
    Ok(pooler)
}

/// What is wrong with what it says of TLS.
fn wrong_tls(pairs: &Pairs) -> Option<String> {
    let value_of = |keys: &[&str]| {
        let named = |(key, _): &&(String, String)| keys.contains(&key.as_str());
        pairs.iter().find(named).map(|(_, value)| value.as_str())
    };
    let own = [["sslcert", "ssl-cert"], ["sslkey", "ssl-key"]].map(|keys| value_of(&keys));
    let own: Vec<_> = own.into_iter().flatten().collect();
    let settings = tls::Settings {
        mode: value_of(&["sslmode", "ssl-mode"]),
        authority: value_of(&["sslrootcert", "ssl-root-cert", "ssl-ca"]),
        own: &own,
    };
    tls::wrong(settings, ["sslmode=verify-ca", "sslmode=verify-full"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_nobody_knows_is_refused_without_its_value() {
        for key in ["sslmod", "channel_binding", "pool_size", "Password", ""] {
            let url = format!("postgres://u@h/d?sslmode=require&{key}=geheim");
            let error = known(&url).unwrap_err().to_string();
            assert!(
                error.contains(&format!("{key:?}")) && error.contains("leave it out"),
                "{error}"
            );
            assert!(!error.contains("geheim"), "{error}");
        }
    }

    #[test]
    fn what_means_nothing_to_a_node_is_passed_over() {
        let url = "postgres://u:p%40w@h:5433/d?connect_timeout=10&sslmode=require&keepalives=1";
        assert_eq!(known(url).unwrap().url, "postgres://u:p%40w@h:5433/d?sslmode=require");
        for url in [
            "postgres://u@h/d",
            "postgres:///d?host=/var/run/postgresql&user=u",
            "postgres://h/d?options[search_path]=x&options=-c%20geqo%3Doff",
            "postgres://u:secret@h:x/d",
        ] {
            assert_eq!(known(url).unwrap().url, url);
        }
        let all = known("postgres://h/d?connect_timeout=1").unwrap().url;
        assert!(!all.contains("connect_timeout"), "{all}");
    }

    #[test]
    fn a_pooler_is_asked_for_by_the_url() {
        for (query, pooler) in [
            ("?pooler=transaction", true),
            ("?pgbouncer=true", true),
            ("?pooler=session", false),
            ("", false),
        ] {
            let known = known(&format!("postgres://u@h/d{query}")).unwrap();
            assert_eq!(known, Known { url: "postgres://u@h/d".to_owned(), pooler });
        }
        for (query, word) in [
            ("pooler=yes", "pooler=session"),
            ("pooler=transaction&options=-cjit%3Doff", "ALTER ROLE"),
        ] {
            let error = known(&format!("postgres://u:geheim@h/d?{query}")).unwrap_err().to_string();
            assert!(error.contains(word) && !error.contains("geheim"), "{error}");
        }
    }
}
