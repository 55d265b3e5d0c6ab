//! Decides which origins a node may call: its own targets, by queue, and the allow-list for jobs that
//! name a full URL. Knows nothing of jobs.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::HeaderValue;
use url::{Host, Url};

use super::address;

/// An HTTP origin: scheme, host and port. It has no path, so that a path of a job is never put together
/// from two halves. The scheme `h2c` is http to a server that speaks HTTP/2 from the first byte on (RFC 9113, 3.3),
/// so that many calls share a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    url: Url,
    is_h2c: bool,
}

/// The scheme of a target that speaks HTTP/2 without TLS.
const H2C: &str = "h2c";

/// Why a text is not an origin that can be called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an origin that can be called: {reason}; write it as http://host:port")]
pub struct OriginError {
    text: String,
    reason: String,
}

impl Origin {
    /// Whether `url` lies in this origin: same scheme, host and port.
    pub fn contains(&self, url: &Url) -> bool {
        self.url.origin() == url.origin()
    }

    /// The URL of `path` and `query` here. Neither can lead out of the origin.
    pub(crate) fn url(&self, path: &str, query: Option<&str>) -> Url {
        let mut url = self.url.clone();
        url.set_path(path);
        url.set_query(query);
        url
    }

    /// Whether it is called over HTTP/2 without TLS.
    pub fn is_h2c(&self) -> bool {
        self.is_h2c
    }

    /// Host (no brackets around IPv6) and port, for a connect.
    pub fn host_and_port(&self) -> (String, u16) {
        let host = match self.url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => String::new(),
        };
        (host, self.url.port_or_known_default().unwrap_or(80))
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let wrong = |reason: &str| OriginError { text: hide_user(text), reason: reason.to_owned() };
        let written = text.trim();
        let h2c = written.split_once("://").filter(|(scheme, _)| scheme.eq_ignore_ascii_case(H2C));
        let url = match h2c {
            Some((_, rest)) => Url::parse(&format!("http://{rest}")),
            None => Url::parse(written),
        };
        let url = url.map_err(|error| wrong(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("its scheme is not http, https or h2c"));
        }
        if has_user(&url) {
            return Err(wrong("it names a user"));
        }
        if url.path() != "/" {
            return Err(wrong("it has a path, and jobs bring their own"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("it has a query or a fragment"));
        }
        if let Some(forbidden) = literal_address(&url).and_then(address::forbidden) {
            return Err(wrong(forbidden.reason()));
        }
        Ok(Self { url, is_h2c: h2c.is_some() })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.url.origin().ascii_serialization();
        match text.strip_prefix("http").filter(|_| self.is_h2c) {
            Some(rest) => write!(f, "{H2C}{rest}"),
            None => f.write_str(&text),
        }
    }
}

/// Whether a URL carries a user name or a password.
pub(super) fn has_user(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// The address that stands in a URL in place of a name.
pub(super) fn literal_address(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Domain(_) => None,
        Host::Ipv4(address) => Some(IpAddr::V4(address)),
        Host::Ipv6(address) => Some(IpAddr::V6(address)),
    }
}

/// `text` without what stands before an `@` of its authority, for messages.
pub(super) fn hide_user(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://…@{host}{tail}"),
        None => text.to_owned(),
    }
}

/// This node's own targets: one for each queue that has one of its own, and one for the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    rest: Option<Origin>,
    by_queue: BTreeMap<String, Origin>,
    host_header: Option<HeaderValue>,
}

/// Why a list of targets is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetsError {
    /// A target is not an origin.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// Two targets for the same queue.
    #[error("there are two targets for {0}; give one")]
    Twice(String),
    /// `=URL`.
    #[error(
        "{0:?} has no queue before its '='; write QUEUE=URL, or the URL alone for all other queues"
    )]
    NoQueue(String),
}

impl Targets {
    /// The target of a node that was told of none.
    pub const DEFAULT: &'static str = "http://127.0.0.1:8080";

    /// Targets from texts of the form `URL` (for all queues that have none of their own) or `QUEUE=URL`.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, TargetsError> {
        let mut targets = Self { rest: None, by_queue: BTreeMap::new(), host_header: None };
        for text in texts.iter().map(|text| text.as_ref().trim()) {
            let named = text.split_once('=').filter(|(queue, _)| !queue.contains("://"));
            let twice = match named {
                Some(("", _)) => return Err(TargetsError::NoQueue(text.to_owned())),
                Some((queue, url)) => {
                    let before = targets.by_queue.insert(queue.to_owned(), url.parse()?);
                    before.map(|_| format!("queue {queue:?}"))
                }
                None => {
                    let before = targets.rest.replace(text.parse()?);
                    before.map(|_| "the queues without one of their own".to_owned())
                }
            };
            if let Some(whose) = twice {
                return Err(TargetsError::Twice(whose));
            }
        }
        Ok(targets)
    }

    /// The same targets, called with this `Host` header, for a web server that tells its sites apart by
    /// name.
    #[must_use]
    pub fn with_host_header(self, host_header: Option<HeaderValue>) -> Self {
        Self { host_header, ..self }
    }

    /// The target of a queue.
    pub fn of(&self, queue: &str) -> Option<&Origin> {
        self.by_queue.get(queue).or(self.rest.as_ref())
    }

    /// The target of queues that have none of their own.
    pub fn rest(&self) -> Option<&Origin> {
        self.rest.as_ref()
    }

    /// The queues that have a target of their own.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        self.by_queue.keys().map(String::as_str)
    }

    /// Every target, each once.
    pub fn origins(&self) -> Vec<&Origin> {
        let mut origins: Vec<&Origin> = Vec::new();
        for origin in self.rest.iter().chain(self.by_queue.values()) {
            if !origins.contains(&origin) {
                origins.push(origin);
            }
        }
        origins
    }

    /// The `Host` header for calls to own targets, when it is not the target's own name.
    pub fn host_header(&self) -> Option<&HeaderValue> {
        self.host_header.as_ref()
    }
}

/// For people: `http://127.0.0.1:8080, reports=http://127.0.0.1:9000`.
impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = self.rest.iter().map(ToString::to_string);
        let named = self.by_queue.iter().map(|(queue, origin)| format!("{queue}={origin}"));
        f.write_str(&rest.chain(named).collect::<Vec<_>>().join(", "))
    }
}

/// The origins that a job may name in full.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedOrigins(Vec<Origin>);

impl AllowedOrigins {
    /// An allow-list from the texts of its origins.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, OriginError> {
        texts.iter().map(|text| text.as_ref().parse()).collect::<Result<_, _>>().map(Self)
    }

    /// The one of them that `url` lies in.
    pub fn find(&self, url: &Url) -> Option<&Origin> {
        self.0.iter().find(|origin| origin.contains(url))
    }

    /// The origins, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = &Origin> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_origin_and_nothing_more() {
        for good in ["http://127.0.0.1:8080", "https://app.example/", "http://[::1]:80", "HTTP://A"]
        {
            assert!(good.parse::<Origin>().is_ok(), "{good}");
        }
        let bad = [
            "127.0.0.1:8080",
            "ftp://host",
            "http://user:secret@host",
            "http://host/base",
            "http://host/?x",
            "http://host#x",
            "http://169.254.169.254",
            "http://[::ffff:169.254.169.254]",
            "http://0xa9fea9fe",
            "",
        ];
        for bad in bad {
            let error = bad.parse::<Origin>().unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn h2c_is_http_by_another_protocol() {
        let origin: Origin = "H2C://app.example:8081/".parse().unwrap();
        assert_eq!(
            (origin.is_h2c(), origin.to_string().as_str()),
            (true, "h2c://app.example:8081")
        );
        assert_eq!(origin.url("/a", None).as_str(), "http://app.example:8081/a");
        assert!(origin.contains(&Url::parse("http://app.example:8081/b").unwrap()));
        assert_eq!("h2c://app.example".parse::<Origin>().unwrap().host_and_port().1, 80);
        for bad in
            ["h2c://169.254.169.254", "h2c://user:secret@host", "h2c://host/base", "h2cs://host"]
        {
            assert!(bad.parse::<Origin>().is_err(), "{bad}");
        }
        assert!(!"https://app.example".parse::<Origin>().unwrap().is_h2c());
    }

    #[test]
    fn a_queue_has_its_own_target_or_that_of_the_rest() {
        let targets = Targets::parse(&["http://a:1", "reports=http://b:2"]).unwrap();
        assert_eq!(targets.of("reports").unwrap().to_string(), "http://b:2");
        assert_eq!(targets.of("mail").unwrap().to_string(), "http://a:1");
        assert_eq!(targets.to_string(), "http://a:1, reports=http://b:2");
        let named = Targets::parse(&["reports=http://b:2"]).unwrap();
        assert_eq!(named.of("mail"), None);
    }

    #[test]
    fn two_targets_for_one_queue_are_a_mistake() {
        for texts in [["http://a", "http://b"], ["q=http://a", "q=http://b"]] {
            assert!(matches!(Targets::parse(&texts), Err(TargetsError::Twice(_))));
        }
        assert!(matches!(Targets::parse(&["=http://a"]), Err(TargetsError::NoQueue(_))));
    }

    #[test]
    fn the_allow_list_compares_scheme_host_and_port() {
        let allowed = AllowedOrigins::parse(&["https://api.example"]).unwrap();
        let allows = |url: &str| allowed.find(&Url::parse(url).unwrap()).is_some();
        assert!(allows("https://api.example:443/x"));
        assert!(allows("https://API.example/x"));
        assert!(!allows("http://api.example/x"));
        assert!(!allows("https://api.example:8443/x"));
        assert!(!allows("https://api.example.evil/x"));
        assert!(!allows("https://evil/https://api.example"));
    }
}
