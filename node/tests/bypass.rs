//! Ways around the rules of whom a node calls, each tried and refused: the table of docs/security.md. What a name's addresses
//! do to it is tried where names are resolved (`caller/http.rs`), and what an answer can do by the caller's contract.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use turnwise_engine::{ServerInstant, Token};
use turnwise_node::caller::{AllowedOrigins, Call, Origin, Rejection, Targets, prepare};
use turnwise_node::job::{ClaimedJob, JobId};

/// How a try is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// It is an address of the link or of a cloud's metadata, once it is read as it would be called.
    Metadata,
    /// It is an address of no host, once it is read as it would be called.
    NoHost,
    /// It is no URL that can be called.
    Form,
    /// Its origin is on no list.
    List,
}

const TRIES: &[(&str, By)] = &[
    // The address itself, and other writings of it.
    ("http://169.254.169.254/", By::Metadata),
    ("http://2852039166/", By::Metadata),
    ("http://0xa9fea9fe/", By::Metadata),
    ("http://025177524776/", By::Metadata),
    ("http://0xa9.0xfe.0xa9.0xfe/", By::Metadata),
    ("http://0251.0376.0251.0376/", By::Metadata),
    ("http://169.0376.0xa9.254/", By::Metadata),
    ("http://169.254.43518/", By::Metadata),
    ("http://169.16689662/", By::Metadata),
    ("http://169.254.169.254./", By::Metadata),
    ("HTTP://0XA9FEA9FE/", By::Metadata),
    ("http:///169.254.169.254/", By::Metadata),
    ("http://169.254.169.254:80/", By::Metadata),
    ("https://169.254.169.254/", By::Metadata),
    // Written in other characters.
    ("http://%31%36%39.254.169.254/", By::Metadata),
    ("http://169%2e254%2e169%2e254/", By::Metadata),
    ("http://１６９.２５４.１６９.２５４/", By::Metadata),
    ("http://169。254。169。254/", By::Metadata),
    ("http://①⑥⑨.②⑤④.①⑥⑨.②⑤④/", By::Metadata),
    ("http://169.254.169\u{ad}.254/", By::Metadata),
    // Wrapped in IPv6.
    ("http://[::ffff:169.254.169.254]/", By::Metadata),
    ("http://[0:0:0:0:0:FFFF:A9FE:A9FE]/", By::Metadata),
    ("http://[::169.254.169.254]/", By::Metadata),
    ("http://[::ffff:0:169.254.169.254]/", By::Metadata),
    ("http://[64:ff9b::169.254.169.254]/", By::Metadata),
    ("http://[64:ff9b:1::169.254.169.254]/", By::Metadata),
    ("http://[64:ff9b:1:a9fe:a9:fe00::]/", By::Metadata),
    ("http://[2002:a9fe:a9fe::]/", By::Metadata),
    ("http://[2001::5601:5601]/", By::Metadata),
    ("http://[2001:db8::5efe:169.254.169.254]/", By::Metadata),
    // The other addresses of metadata.
    ("http://[fe80::a9fe:a9fe]/", By::Metadata),
    ("http://[fd00:ec2::254]/", By::Metadata),
    ("http://[fd20:ce::254]/", By::Metadata),
    ("http://[fd00:c1::a9fe:a9fe]/", By::Metadata),
    ("http://169.254.170.2/", By::Metadata),
    ("http://100.100.100.200/", By::Metadata),
    ("http://168.63.129.16/", By::Metadata),
    ("http://192.0.0.192/", By::Metadata),
    // This machine by an address that is none.
    ("http://0.0.0.0/", By::NoHost),
    ("http://0/", By::NoHost),
    ("http://0x0:8080/", By::NoHost),
    ("http://[::]/", By::NoHost),
    ("http://[::ffff:0.0.0.0]/", By::NoHost),
    ("http://255.255.255.255/", By::NoHost),
    // A user's name that looks like the host.
    ("http://api.example@169.254.169.254/", By::Form),
    ("http://api.example:443@169.254.169.254/", By::Form),
    ("http://api.example%40169.254.169.254/", By::Form),
    ("https://api.example\\@evil.example/", By::Form),
    // What only looks like a path or a URL.
    ("//169.254.169.254/", By::Form),
    ("/\\169.254.169.254/", By::Form),
    ("http:169.254.169.254/", By::Form),
    ("http:/169.254.169.254/", By::Form),
    (" http://169.254.169.254/", By::Form),
    ("http://[fe80::1%25eth0]/", By::Form),
    ("file:///etc/passwd", By::Form),
    ("gopher://169.254.169.254/", By::Form),
    // Names beside the allowed one, `https://api.example`.
    ("http://api.example/", By::List),
    ("https://api.example:8443/", By::List),
    ("https://api.example./", By::List),
    ("https://api.example.evil.example/", By::List),
    ("https://evil-api.example/", By::List),
    ("https://evil.example#@api.example/", By::List),
    ("https://evil.example?@api.example/", By::List),
    ("http://localhost/", By::List),
    ("http://127.0.0.1/", By::List),
    ("http://metadata.google.internal/", By::List),
    ("http://169.254.169.254.nip.io/", By::List),
];

fn called(url: &str) -> Result<Call, Rejection> {
    let job = ClaimedJob {
        id: JobId::generate(),
        token: Token(1),
        queue: "default".to_owned(),
        method: "POST".to_owned(),
        url: url.to_owned(),
        headers: None,
        body: None,
        body_bytes: 0,
        attempt: 1,
        max_attempts: 20,
        hand_backs: 0,
        deadline_ms: 5_000,
        scheduled_at: ServerInstant::from_micros(0),
        particulars: Default::default(),
    };
    let targets = Targets::parse(&["http://own.example:8080"]).unwrap();
    let allowed = AllowedOrigins::parse(&["https://api.example"]).unwrap();
    prepare(&job, &targets, &allowed, ServerInstant::from_micros(0))
}

/// What an error says when the address is the reason.
fn says(error: &str) -> Option<By> {
    let metadata = error.contains("metadata are never called").then_some(By::Metadata);
    metadata.or(error.contains("name no host").then_some(By::NoHost))
}

#[test]
fn no_job_leads_where_the_node_was_not_told_to_call() {
    assert!(called("https://api.example/").is_ok(), "the list allows something");
    for (url, by) in TRIES {
        let rejection = called(url).unwrap_err();
        let found = match &rejection {
            Rejection::NotAllowed(_) => By::List,
            Rejection::Url { .. } => says(&rejection.to_string()).unwrap_or(By::Form),
            other => panic!("{url}: {other:?}"),
        };
        assert_eq!(found, *by, "{url}: {rejection}");
    }
}

#[test]
fn no_configuration_allows_an_address_that_is_never_called() {
    for (url, by) in TRIES {
        let parsed = url.parse::<Origin>();
        match by {
            By::Metadata | By::NoHost => {
                let error = parsed.unwrap_err().to_string();
                assert_eq!(says(&error), Some(*by), "{url}: {error}");
                let target = Targets::parse(&[format!("mail={url}")]);
                assert!(target.is_err() && AllowedOrigins::parse(&[url]).is_err(), "{url}");
            }
            // Some of these are read as they were meant here: the address is refused all the same.
            By::Form if url.contains("169.254.169.254") => assert!(parsed.is_err(), "{url}"),
            By::Form | By::List => {}
        }
    }
}

#[test]
fn a_path_stays_on_the_nodes_own_target() {
    let paths = [
        "/@169.254.169.254/",
        "/http://169.254.169.254/",
        "/..//169.254.169.254/",
        "/.//169.254.169.254/",
        "/%2f%2f169.254.169.254/",
        "/:80@169.254.169.254/",
        "/?u=http://169.254.169.254/",
        "/#@169.254.169.254/",
    ];
    for path in paths {
        let call = called(path).unwrap();
        assert!(call.own_target, "{path}");
        assert_eq!(call.url.origin().ascii_serialization(), "http://own.example:8080", "{path}");
        assert_eq!((call.url.username(), call.url.password()), ("", None), "{path}");
    }
}

#[test]
fn the_page_on_security_names_every_try() {
    let page = include_str!("../../docs/security.md");
    for (url, _) in TRIES {
        let shown = url.trim().replace('\u{ad}', "<U+00AD>");
        assert!(page.contains(&format!("`{shown}`")), "{shown} is not in docs/security.md");
    }
}
