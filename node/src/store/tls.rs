//! Decides what an error of TLS on the way to a database means for people, and which settings of it would not do what
//! they seem to.

use std::error::Error;

use rustls::CertificateError;

/// Where a certificate came from, and what to do about it.
const UNKNOWN_ISSUER: &str = "Name the file with the certificate of the authority that issued the server's (sslrootcert for PostgreSQL, ssl-ca for MariaDB and MySQL)";
const OTHER_NAME: &str = "Connect by a name that stands in the server's certificate, or have one issued with this name (subjectAltName)";
const OUT_OF_DATE: &str = "Renew the server's certificate, and look at the clocks of both machines";
const NO_TLS: &str = "Turn TLS on at the server (ssl = on for PostgreSQL), or connect without it, where the way is safe";
const OTHER: &str = "Check the certificate of the server, and the files that the URL names for TLS";

/// What went wrong with TLS, and what to do; none: it was something else.
pub(super) fn trouble(error: &sqlx::Error) -> Option<(String, &'static str)> {
    let cause: &(dyn Error + 'static) = match error {
        sqlx::Error::Tls(cause) => &**cause,
        sqlx::Error::Io(error) => error.get_ref()?,
        _ => return None,
    };
    match cause.downcast_ref::<rustls::Error>() {
        Some(error) => Some((format!("TLS: {error}"), remedy(error))),
        None if matches!(error, sqlx::Error::Tls(_)) => {
            let remedy = if cause.to_string().contains("support TLS") { NO_TLS } else { OTHER };
            Some((format!("TLS: {cause}"), remedy))
        }
        None => None,
    }
}

fn remedy(error: &rustls::Error) -> &'static str {
    match error {
        rustls::Error::InvalidCertificate(error) => match error {
            CertificateError::UnknownIssuer => UNKNOWN_ISSUER,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                OTHER_NAME
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => OUT_OF_DATE,
            _ => OTHER,
        },
        _ => OTHER,
    }
}

/// Settings of a URL's TLS: how it is asked for, and the files.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Settings<'a> {
    /// Its mode, as the database calls it.
    pub(super) mode: Option<&'a str>,
    /// The certificate of the authority: a file, or the certificate itself.
    pub(super) authority: Option<&'a str>,
    /// Other files, for a certificate of the node's own.
    pub(super) own: &'a [&'a str],
}

/// What is wrong with the settings; none: nothing. `verifies` are the modes in which the server's certificate is
/// looked at, as they are written.
pub(super) fn wrong(settings: Settings<'_>, verifies: [&str; 2]) -> Option<String> {
    let mode = settings.mode.unwrap_or_default();
    let is_mode = |with: &&str| {
        let word = with.split_once('=').map_or(*with, |(_, word)| word);
        mode.eq_ignore_ascii_case(word)
    };
    if settings.authority.is_some() && !verifies.iter().any(is_mode) {
        return Some(format!(
            "the certificate of an authority is named, and nothing is checked with it in this mode; ask for {} (or {}, which passes over the host's name)",
            verifies[1], verifies[0]
        ));
    }
    let files =
        settings.authority.iter().chain(settings.own).filter(|file| !file.contains("-----BEGIN"));
    for file in files {
        match std::fs::read(file) {
            Err(error) => return Some(format!("the file {file:?} cannot be read: {error}")),
            Ok(bytes) if !bytes.windows(10).any(|part| part == b"-----BEGIN") => {
                return Some(format!("the file {file:?} holds no certificate and no key in PEM"));
            }
            Ok(_) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERIFIES: [&str; 2] = ["sslmode=verify-ca", "sslmode=verify-full"];

    #[test]
    fn an_authority_that_would_not_be_asked_is_pointed_out() {
        let ask = |mode, authority| {
            wrong(Settings { mode, authority, own: &[] }, VERIFIES).unwrap_or_default()
        };
        let authority = Some("-----BEGIN CERTIFICATE-----");
        assert_eq!(ask(Some("verify-full"), authority), "");
        assert_eq!(ask(Some("verify-full"), None), "");
        for mode in [None, Some("require"), Some("prefer")] {
            assert!(ask(mode, authority).contains("ask for sslmode=verify-full"));
            assert_eq!(ask(mode, None), "");
        }
    }

    #[test]
    fn files_that_will_not_do_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let letter = folder.path().join("letter.pem");
        std::fs::write(&letter, "Dear Sir or Madam").unwrap();
        let (letter, none) = (letter.to_str().unwrap(), "/no/such/file.pem");
        for (file, reason) in [(letter, "no certificate"), (none, "cannot be read")] {
            let of_authority =
                Settings { mode: Some("verify-full"), authority: Some(file), own: &[] };
            let own = Settings { own: &[file], ..Settings::default() };
            for settings in [of_authority, own] {
                let said = wrong(settings, VERIFIES).unwrap();
                assert!(said.contains(file) && said.contains(reason), "{said}");
            }
        }
    }

    #[test]
    fn every_error_of_tls_has_a_remedy() {
        let of = |error: rustls::Error| {
            trouble(&sqlx::Error::Io(std::io::Error::other(error))).map(|(_, remedy)| remedy)
        };
        let certificate = |error| of(rustls::Error::InvalidCertificate(error));
        assert_eq!(certificate(CertificateError::UnknownIssuer), Some(UNKNOWN_ISSUER));
        assert_eq!(certificate(CertificateError::NotValidForName), Some(OTHER_NAME));
        assert_eq!(certificate(CertificateError::Expired), Some(OUT_OF_DATE));
        assert_eq!(certificate(CertificateError::BadSignature), Some(OTHER));
        assert_eq!(of(rustls::Error::DecryptError), Some(OTHER));
        let none = sqlx::Error::Tls("server does not support TLS".into());
        assert_eq!(trouble(&none).map(|(_, remedy)| remedy), Some(NO_TLS));
        let away = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(trouble(&sqlx::Error::Io(away)), None);
    }
}
