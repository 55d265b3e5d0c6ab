//! Decides which parameters the URL of a MariaDB or MySQL database may carry. The driver passes over what it does not
//! know: a misspelt `ssl-mode` would connect without what it asks for.

use url::Url;

use crate::store::StoreError;
use crate::store::errors::without_password;
use crate::store::tls;

/// Parameters that the driver knows and that a node leaves to people. (Character set and time zone are its own.)
const KNOWN: &[&str] = &[
    "ssl-mode",
    "sslmode",
    "ssl-ca",
    "sslca",
    "ssl-cert",
    "sslcert",
    "ssl-key",
    "sslkey",
    "socket",
    "statement-cache-capacity",
];

/// Parameters that an app's URL may carry and that mean nothing to a node, which has its own: they are passed
/// over.
const PASSED_OVER: &[&str] = &[
    "charset",
    "collation",
    "connect_timeout",
    "connectTimeout",
    "encoding",
    "pool",
    "reconnect",
    "serverVersion",
    "time-zone",
    "timezone",
];

/// The URL as the driver reads it, with those parameters alone that it is to see. Fails when it has one that nobody
/// knows, or names no database.
pub(super) fn known(url: &str) -> Result<Url, StoreError> {
    let bad = |reason: String| StoreError::BadUrl { url: without_password(url), reason };
    let rest = url.split_once(':').map_or("", |(_, rest)| rest);
    let mut parsed =
        Url::parse(&format!("mysql:{rest}")).map_err(|error| bad(error.to_string()))?;
    let pairs: Vec<(String, String)> = parsed.query_pairs().into_owned().collect();
    let is_known = |key: &str| KNOWN.contains(&key);
    let stranger = pairs.iter().find(|(key, _)| !is_known(key) && !PASSED_OVER.contains(&&**key));
    if let Some((key, _)) = stranger {
        return Err(bad(format!(
            "there is no parameter {key:?} for this; leave it out, or write it as one of {}",
            KNOWN.join(", ")
        )));
    }
    let value_of = |keys: &[&str]| {
        pairs.iter().find(|(key, _)| keys.contains(&&**key)).map(|(_, value)| value.as_str())
    };
    let own = [["ssl-cert", "sslcert"], ["ssl-key", "sslkey"]].map(|keys| value_of(&keys));
    let own: Vec<_> = own.into_iter().flatten().collect();
    let settings = tls::Settings {
        mode: value_of(&["ssl-mode", "sslmode"]),
        authority: value_of(&["ssl-ca", "sslca"]),
        own: &own,
    };
    let verifies = ["ssl-mode=VERIFY_CA", "ssl-mode=VERIFY_IDENTITY"];
    if let Some(wrong) = tls::wrong(settings, verifies) {
        return Err(bad(wrong));
    }
    if parsed.cannot_be_a_base() || parsed.path().trim_matches('/').is_empty() {
        return Err(bad("it names no database: mysql://USER:PASSWORD@HOST/NAME".to_owned()));
    }
    let kept: Vec<_> = pairs.iter().filter(|(key, _)| is_known(key)).collect();
    if kept.is_empty() {
        parsed.set_query(None);
    } else {
        parsed.query_pairs_mut().clear().extend_pairs(kept);
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_nobody_knows_is_refused_without_its_value() {
        for key in ["sslmod", "ssl_mode", "pool_size", "Password", ""] {
            let url = format!("mysql://u@h/d?ssl-mode=REQUIRED&{key}=geheim");
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
        let url = "mariadb://u:p%40w@h:3307/d?charset=utf8&ssl-mode=VERIFY_IDENTITY&timezone=Z";
        assert_eq!(
            known(url).unwrap().as_str(),
            "mysql://u:p%40w@h:3307/d?ssl-mode=VERIFY_IDENTITY"
        );
        assert_eq!(known("mysql://u@h/d?charset=utf8").unwrap().as_str(), "mysql://u@h/d");
    }

    #[test]
    fn a_database_is_named() {
        for url in
            ["mysql://u:geheim@h", "mysql://u:geheim@h/", "mysql:d", "mysql://u:geheim@h:x/d"]
        {
            let error = known(url).unwrap_err();
            assert!(matches!(error, StoreError::BadUrl { .. }), "{error}");
            assert!(!error.to_string().contains("geheim"), "{error}");
        }
    }
}
