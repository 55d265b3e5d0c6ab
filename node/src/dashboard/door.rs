//! Decides who may come in: only requests that are meant for this address, actions only from a page of our own, from
//! other sites nothing but a link that somebody follows, and where a token is set, only those who know it. What is behind the door is decided elsewhere.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, COOKIE, HOST, HeaderName, HeaderValue,
    ORIGIN, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use uuid::Uuid;

use crate::api;
use crate::api::problem::{Kind, Problem};
use crate::audit::Actor;
use crate::cached::Cached;
use crate::store::{AnyStore, StoreError, TokenView, Tokens};
use crate::token::{PREFIX, Role, TokenHash};
use crate::watch::{ANSWER_TIMEOUT, within};

/// Nothing from elsewhere, nothing inline, in no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
/// How long a browser keeps the cookie of somebody who has shown the token: a working day, in seconds.
const COOKIE_SECONDS: u32 = 12 * 60 * 60;
/// What can be seen without the token: what the page to show it is made of, and what a load balancer asks.
const OPEN: [&str; 4] = ["/login", "/assets/", "/healthz", "/readyz"];
/// What was ordered by whom, for programs and as a page.
const AUDIT: [&str; 2] = ["/v1/audit", "/audit"];
/// How old what is known of tokens may be: one that was revoked opens so long, and whoever shows wrong ones costs the database no
/// more than this.
const TOKENS_AGE: Duration = Duration::from_secs(5);
/// Says where a request comes from. Browsers send it, and no page can set it.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Says how the browser asked, where a proxy with TLS stands in front.
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Says what the answer is for: to go to a page is `navigate`.
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// The rules for whoever asks.
#[derive(Clone)]
pub struct Door {
    /// What the `Host` header may be; none: anything, since the token alone opens.
    hosts: Option<Arc<[String]>>,
    key: Option<Arc<Key>>,
    /// The tokens that the database knows; none: the one of the configuration alone opens.
    known: Option<Arc<Known>>,
}

struct Known {
    store: AnyStore,
    last: Cached<Vec<TokenView>>,
}

struct Key {
    token: String,
    /// The cookie's name: browsers send a cookie to every port of a host, and each port is a node of its own.
    cookie: String,
    /// What the cookie holds: made anew with the process, so that the token itself lies in no browser.
    session: String,
}

impl std::fmt::Debug for Door {
    // It holds the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

impl Door {
    /// The door of what listens on `address`. Without a token it opens only to who asks for this address, or for the
    /// same port of `localhost`, by name: a page of another site whose name was made to point here is refused.
    #[expect(clippy::disallowed_methods, reason = "a secret of this process's, for browsers alone")]
    pub fn new(address: SocketAddr, token: Option<String>) -> Self {
        let cookie = format!("turnwise-{}", address.port());
        let session = || Uuid::new_v4().simple().to_string();
        let key = token.map(|token| Arc::new(Key { token, cookie, session: session() }));
        let hosts = key.is_none().then(|| hosts(address));
        Self { hosts, key, known: None }
    }

    /// The same door, which the tokens of this database open too, each as far as its role goes: where a token is needed at all.
    pub fn with_tokens(self, store: AnyStore) -> Self {
        let known = Known { store, last: Cached::new(TOKENS_AGE) };
        Self { known: Some(Arc::new(known)), ..self }
    }

    /// Whether this is the token. Takes as long for any that has its length.
    pub(super) fn opens(&self, token: &str) -> bool {
        self.key.as_ref().is_some_and(|key| is_same(token, &key.token))
    }

    /// The cookie for who has shown the token in a request with these headers. Where a proxy says that the request
    /// came to it by TLS, the browser is told to send the cookie that way alone: whoever claims so falsely keeps only
    /// its own cookie from itself.
    pub(super) fn cookie(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let Key { cookie, session, .. } = self.key.as_deref()?;
        let by_tls = headers.get(FORWARDED_PROTO).is_some_and(|proto| proto == "https");
        let secure = if by_tls { "; Secure" } else { "" };
        let cookie = format!(
            "{cookie}={session}; Path=/; Max-Age={COOKIE_SECONDS}; HttpOnly; SameSite=Strict{secure}"
        );
        HeaderValue::from_str(&cookie).ok()
    }

    /// What the token that a request shows opens, and whose it is; none: it shows none that opens.
    async fn shown(&self, headers: &HeaderMap) -> Result<Option<(Role, Actor)>, StoreError> {
        let Some(token) = self.key.as_ref().and_then(|_| bearer(headers)) else { return Ok(None) };
        if self.opens(token) {
            return Ok(Some((Role::Operate, Actor::listen_token())));
        }
        let Some(known) = self.known.as_ref().filter(|_| token.starts_with(PREFIX)) else {
            return Ok(None);
        };
        let read = || within(ANSWER_TIMEOUT, known.store.tokens());
        let (tokens, shown) = (known.last.get(read).await?, TokenHash::of(token));
        // Each is compared, whichever it is.
        let same = tokens.iter().filter(|token| token.hash.is_same(&shown));
        let most = same.max_by_key(|token| token.role);
        Ok(most.map(|token| (token.role, Actor::token(token.name.as_str(), token.role))))
    }

    /// Why this request, whose token opens so much, is turned away; none when it may come in.
    fn turns_away(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        shown: Option<Role>,
    ) -> Option<Turned> {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        if let Some(hosts) = &self.hosts
            && !hosts.iter().any(|known| known.eq_ignore_ascii_case(host))
        {
            return Some(Turned::OtherHost);
        }
        let is_action = !matches!(*method, Method::GET | Method::HEAD);
        // Where no token is asked for, a program on this machine may act by the API; every browser says on whose behalf it acts.
        let by_program = self.key.is_none() && api::is_of_api(path) && names_no_page(headers);
        let is_ours = match is_action {
            true => by_program || is_from_here(headers, host),
            false => may_read(headers),
        };
        if !is_ours && shown.is_none() {
            // A program without a token, or with one that does not open, is told what it lacks.
            let is_program = api::is_of_api(path) && names_no_page(headers);
            if self.key.is_some() && is_program && !self.has_cookie(headers) {
                return Some(Turned::NoToken);
            }
            return Some(Turned::OtherSite);
        }
        let is_open =
            OPEN.iter().any(|open| path == *open || open.ends_with('/') && path.starts_with(open));
        if self.key.is_none() || is_open {
            return None;
        }
        match shown.or_else(|| self.has_cookie(headers).then_some(Role::Operate)) {
            None => Some(Turned::NoToken),
            Some(role) if role < needed(method, path) => Some(Turned::Role),
            Some(_) => None,
        }
    }

    fn has_cookie(&self, headers: &HeaderMap) -> bool {
        let Some(key) = &self.key else { return false };
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        cookies.flat_map(|cookies| cookies.split(';')).any(|cookie| {
            let value =
                cookie.trim().strip_prefix(key.cookie.as_str()).and_then(|c| c.strip_prefix('='));
            value.is_some_and(|value| is_same(value, &key.session))
        })
    }
}

/// Why somebody was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turned {
    OtherHost,
    OtherSite,
    NoToken,
    Role,
}

impl Turned {
    /// What it is, to programs and to people, and what to do about it.
    fn words(self) -> (Kind, StatusCode, &'static str, &'static str) {
        match self {
            Self::NoToken => (
                Kind::NoToken,
                StatusCode::UNAUTHORIZED,
                "this needs a token",
                "send that of --listen-token, or one that `turnwise token create` has made, as `Authorization: Bearer ...`",
            ),
            Self::Role => (
                Kind::Role,
                StatusCode::FORBIDDEN,
                "this token opens less than this. Nothing was done",
                "use one of a role that includes it: read sees all but the audit, enqueue enqueues jobs, makes batches and seals them too, operate does the rest \
                 (`turnwise token create --role ...`)",
            ),
            Self::OtherHost => (
                Kind::OtherHost,
                StatusCode::MISDIRECTED_REQUEST,
                "this address is not the one that the node listens on",
                "ask for it by its IP address, or as localhost",
            ),
            Self::OtherSite => (
                Kind::OtherSite,
                StatusCode::FORBIDDEN,
                "refused: this must be asked for by a page of this dashboard, or by a program that names no page. Nothing was done",
                "leave out the headers Origin and Sec-Fetch-Site, or send a token",
            ),
        }
    }

    fn problem(self) -> Problem {
        let (kind, _, say, remedy) = self.words();
        Problem::new(kind, say, remedy)
    }
}

/// Let in or turn away, and say to the browser what our pages may do.
pub(super) async fn guard(State(door): State<Door>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let wants_page = *request.method() == Method::GET && !path.starts_with("/live");
    let of_api = api::is_of_api(path);
    let headers = request.headers();
    let turned = door.shown(headers).await.map(|shown| {
        let (role, actor) = shown.unzip();
        let by_program = of_api && names_no_page(headers);
        let nobody = || if by_program { Actor::api() } else { Actor::dashboard() };
        match door.turns_away(request.method(), path, headers, role) {
            None => Ok(actor.unwrap_or_else(nobody)),
            Some(turned) => Err(turned),
        }
    });
    let mut response = match turned {
        Ok(Ok(actor)) => {
            let mut request = request;
            request.extensions_mut().insert(actor);
            next.run(request).await
        }
        Err(error) if of_api => Problem::from(error).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
        Ok(Err(turned)) if of_api => turned.problem().into_response(),
        Ok(Err(Turned::NoToken)) if wants_page && path != "/metrics" => {
            Redirect::to("/login").into_response()
        }
        Ok(Err(turned)) => {
            let (_, status, say, remedy) = turned.words();
            (status, format!("{say}: {remedy}\n")).into_response()
        }
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    // With less, browsers send no origin along with a form.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Whether the browser says that a page of our own asks.
fn is_from_here(headers: &HeaderMap, host: &str) -> bool {
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    if headers.get(FETCH_SITE).is_some_and(|site| text(site) != "same-origin") {
        return false;
    }
    let Some(origin) = headers.get(ORIGIN).map(text) else { return false };
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

/// The least that a token must open for this.
fn needed(method: &Method, path: &str) -> Role {
    match *method {
        // It says who may do what, and how often somebody does.
        _ if AUDIT.contains(&path) => Role::Operate,
        Method::GET | Method::HEAD => Role::Read,
        Method::POST if path == "/v1/jobs" || makes_batches(path) => Role::Enqueue,
        _ => Role::Operate,
    }
}

/// Whether batches are made there, or one is sealed.
fn makes_batches(path: &str) -> bool {
    let Some(rest) = path.strip_prefix("/v1/batches") else { return false };
    let sealed = rest.strip_prefix('/').and_then(|rest| rest.strip_suffix("/seal"));
    rest.is_empty() || sealed.is_some_and(|id| !id.contains('/'))
}

/// The token that a request shows.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let given = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = given.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// Whether no browser asks: each says which page it acts for.
fn names_no_page(headers: &HeaderMap) -> bool {
    !headers.contains_key(ORIGIN) && !headers.contains_key(FETCH_SITE)
}

/// Whether somebody comes here, or something of our own asks: a page of another site may lead here, and not ask by itself.
fn may_read(headers: &HeaderMap) -> bool {
    let is = |name: &HeaderName, value: &str| headers.get(name).is_some_and(|v| v == value);
    let is_elsewhere = is(&FETCH_SITE, "cross-site") || is(&FETCH_SITE, "same-site");
    !is_elsewhere || is(&FETCH_MODE, "navigate")
}

fn hosts(address: SocketAddr) -> Arc<[String]> {
    let port = address.port();
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "[::1]".to_owned()];
    match address.ip() {
        IpAddr::V4(ip) => names.push(ip.to_string()),
        IpAddr::V6(ip) => names.push(format!("[{ip}]")),
    }
    let with_port = names.iter().map(|name| format!("{name}:{port}"));
    let bare = names.iter().filter(|_| port == 80).cloned();
    with_port.chain(bare).collect()
}

/// Equality that does not tell by its time where two texts of one length differ.
fn is_same(a: &str, b: &str) -> bool {
    let differences = a.bytes().zip(b.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(differences) == 0 && a.len() == b.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    fn turned(door: &Door, method: &Method, path: &str, headers: &HeaderMap) -> Option<Turned> {
        let shown = bearer(headers).filter(|token| door.opens(token)).map(|_| Role::Operate);
        door.turns_away(method, path, headers, shown)
    }

    fn asked(door: &Door, method: &Method, pairs: &[(&'static str, &str)]) -> Option<Turned> {
        turned(door, method, "/jobs", &headers(pairs))
    }

    #[test]
    fn who_asks_by_another_name_is_turned_away() {
        let door = Door::new("127.0.0.1:7171".parse().unwrap(), None);
        for host in ["127.0.0.1:7171", "localhost:7171", "[::1]:7171", "LOCALHOST:7171"] {
            assert_eq!(asked(&door, &Method::GET, &[("host", host)]), None, "{host}");
        }
        for host in ["evil.example", "evil.example:7171", "127.0.0.1", "127.0.0.1:80", ""] {
            let told = asked(&door, &Method::GET, &[("host", host)]);
            assert_eq!(told, Some(Turned::OtherHost), "{host}");
        }
    }

    #[test]
    fn actions_come_from_our_own_pages_alone() {
        let door = Door::new("127.0.0.1:7171".parse().unwrap(), None);
        let host = ("host", "localhost:7171");
        let here = ("origin", "http://localhost:7171");
        let post = |pairs: &[_]| asked(&door, &Method::POST, pairs);
        assert_eq!(post(&[host, here]), None);
        assert_eq!(post(&[host, here, ("sec-fetch-site", "same-origin")]), None);
        for bad in [
            &[host][..],
            &[host, ("origin", "null")],
            &[host, ("origin", "http://evil.example")],
            &[host, ("origin", "http://localhost:8080")],
            &[host, here, ("sec-fetch-site", "cross-site")],
            &[host, here, ("sec-fetch-site", "same-site")],
            &[host, ("sec-fetch-site", "same-origin")],
        ] {
            assert_eq!(post(bad), Some(Turned::OtherSite), "{bad:?}");
        }
    }

    #[test]
    fn a_program_acts_by_the_api_where_no_token_is_asked_for_and_no_page_does() {
        let host = ("host", "localhost:7171");
        let post = |door: &Door, path: &str, pairs: &[_]| {
            turned(door, &Method::POST, path, &headers(pairs))
        };
        let door = Door::new("127.0.0.1:7171".parse().unwrap(), None);
        for path in ["/v1/jobs", "/v1/queues/mail/pause"] {
            assert_eq!(post(&door, path, &[host]), None);
            assert_eq!(post(&door, path, &[host, ("origin", "http://localhost:7171")]), None);
            for page in [
                ("origin", "null"),
                ("origin", "http://evil.example"),
                ("sec-fetch-site", "cross-site"),
            ] {
                assert_eq!(post(&door, path, &[host, page]), Some(Turned::OtherSite), "{page:?}");
            }
        }
        for path in ["/v1x", "/queues/pause", "/"] {
            assert_eq!(post(&door, path, &[host]), Some(Turned::OtherSite), "{path}");
        }
        assert_eq!(post(&door, "/v1/jobs", &[("host", "evil.example")]), Some(Turned::OtherHost));
        // A browser that has the cookie is still a browser.
        let door = Door::new("0.0.0.0:7171".parse().unwrap(), Some("a good secret".to_owned()));
        let cookie = door.cookie(&headers(&[])).unwrap();
        let session = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
        let with = post(&door, "/v1/jobs", &[host, ("cookie", session.as_str())]);
        assert_eq!(with, Some(Turned::OtherSite));
    }

    #[test]
    fn a_token_is_asked_for_where_one_is_set() {
        let door = Door::new("0.0.0.0:7171".parse().unwrap(), Some("a good secret".to_owned()));
        let host = ("host", "jobs.example");
        assert_eq!(asked(&door, &Method::GET, &[host]), Some(Turned::NoToken));
        let bearer = ("authorization", "Bearer a good secret");
        assert_eq!(asked(&door, &Method::GET, &[host, bearer]), None);
        assert_eq!(asked(&door, &Method::POST, &[host, bearer]), None);
        for wrong in ["Bearer a good secre", "Bearer a good secret!", "a good secret", "Bearer "] {
            let told = asked(&door, &Method::GET, &[host, ("authorization", wrong)]);
            assert_eq!(told, Some(Turned::NoToken), "{wrong}");
        }
        let cookie = door.cookie(&headers(&[])).unwrap();
        let session = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
        let with_cookie = |session: &str| {
            asked(&door, &Method::GET, &[host, ("cookie", &format!("a=b; {session}"))])
        };
        assert_eq!(with_cookie(&session), None);
        assert_eq!(with_cookie("turnwise-7171=a good secret"), Some(Turned::NoToken));
        let other = Door::new("0.0.0.0:7171".parse().unwrap(), Some("a good secret".to_owned()));
        let told = asked(&other, &Method::GET, &[host, ("cookie", &session)]);
        assert_eq!(told, Some(Turned::NoToken), "another process's cookie");
        assert_eq!(turned(&door, &Method::GET, "/login", &headers(&[host])), None);
        assert_eq!(turned(&door, &Method::GET, "/assets/style.css", &headers(&[host])), None);
        let told = turned(&door, &Method::GET, "/loginx", &headers(&[host]));
        assert_eq!(told, Some(Turned::NoToken));
    }

    #[test]
    fn a_token_opens_as_far_as_its_role_goes() {
        let door = Door::new("0.0.0.0:7171".parse().unwrap(), Some("a good secret".to_owned()));
        let headers = headers(&[("host", "jobs.example")]);
        let may = |role, method: &Method, path: &str| match door
            .turns_away(method, path, &headers, role)
        {
            None => true,
            Some(Turned::Role) => false,
            Some(other) => panic!("{other:?}"),
        };
        for (method, path, least) in [
            (Method::GET, "/v1/jobs", Role::Read),
            (Method::HEAD, "/v1/nodes", Role::Read),
            (Method::GET, "/jobs", Role::Read),
            (Method::POST, "/v1/jobs", Role::Enqueue),
            (Method::POST, "/v1/jobs/7/cancel", Role::Operate),
            (Method::GET, "/v1/batches", Role::Read),
            (Method::POST, "/v1/batches", Role::Enqueue),
            (Method::POST, "/v1/batches/7/seal", Role::Enqueue),
            (Method::POST, "/v1/batches/7/cancel", Role::Operate),
            (Method::POST, "/v1/batches/7/8/seal", Role::Operate),
            (Method::POST, "/v1/batchesx", Role::Operate),
            (Method::PUT, "/v1/schedules/s", Role::Operate),
            (Method::DELETE, "/v1/schedules/s", Role::Operate),
            (Method::PATCH, "/v1/jobs", Role::Operate),
            (Method::GET, "/v1/audit", Role::Operate),
            (Method::GET, "/audit", Role::Operate),
            (Method::POST, "/queues/pause", Role::Operate),
        ] {
            for role in Role::ALL {
                assert_eq!(
                    may(Some(role), &method, path),
                    role >= least,
                    "{role:?} {method} {path}"
                );
            }
        }
    }
}
