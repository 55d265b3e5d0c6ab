//! Decides which parameters the URL of a PostgreSQL database may carry. The driver passes over what it does not
//! know and writes it to the log with its value: a misspelt `sslmode` would connect without what it asks for,
//! and a secret would stand in the log.

use url::Url;

use crate::store::StoreError;
use crate::store::errors::without_password;

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

/// The URL with those parameters alone that the driver knows. Fails when it has one that nobody knows.
pub(super) fn known(url: &str) -> Result<String, StoreError> {
    // What cannot be read here is told by the driver.
    let Ok(mut parsed) = Url::parse(url) else { return Ok(url.to_owned()) };
    let is_known = |key: &str| KNOWN.contains(&key) || key.starts_with("options[");
    let pairs: Vec<(String, String)> = parsed.query_pairs().into_owned().collect();
    for (key, _) in &pairs {
        if !is_known(key) && !PASSED_OVER.contains(&key.as_str()) {
            return Err(StoreError::BadUrl {
                url: without_password(url),
                reason: format!(
                    "there is no parameter {key:?} for this; leave it out, or write it as one of {}",
                    KNOWN.join(", ")
                ),
            });
        }
    }
    if pairs.iter().all(|(key, _)| is_known(key)) {
        return Ok(url.to_owned());
    }
    let kept = pairs.iter().filter(|(key, _)| is_known(key));
    parsed.query_pairs_mut().clear().extend_pairs(kept);
    Ok(parsed.into())
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
        assert_eq!(known(url).unwrap(), "postgres://u:p%40w@h:5433/d?sslmode=require");
        for url in [
            "postgres://u@h/d",
            "postgres:///d?host=/var/run/postgresql&user=u",
            "postgres://h/d?options[search_path]=x&options=-c%20geqo%3Doff",
            "postgres://u:secret@h:x/d",
        ] {
            assert_eq!(known(url).unwrap(), url);
        }
        let all = known("postgres://h/d?connect_timeout=1").unwrap();
        assert!(!all.contains("connect_timeout"), "{all}");
    }
}
