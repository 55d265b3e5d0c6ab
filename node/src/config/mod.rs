//! Decides what a node is told to do: the settings, where each may come from, and which values are good.
//! Acts on none of them.
//!
//! - `settings`: the names of the settings, and the name that somebody may have meant;
//! - `layers`: flags, then the environment, then the file: who wins, and where a value came from;
//! - `file`: `turnwise.toml`;
//! - `retention`: how long ended jobs are kept;
//! - `signing`: the keys that calls are signed with.

mod file;
mod layers;
mod retention;
mod settings;
mod signing;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use turnwise_engine::Period;

pub use self::layers::{Environment, Flags, Given, Layers, Source};
pub use self::retention::{
    DEFAULT_KEEP_DEAD, DEFAULT_KEEP_SUCCEEDED, KEEP_MAX, KEEP_MIN, Keep, Retention, parse_age,
};
pub use self::settings::{Kind, SETTINGS, Setting};
use crate::caller::{AllowedOrigins, SigningKeys, Targets};
use crate::redact::Redaction;

/// The database of a program that was told of none.
pub const DEFAULT_DATABASE_URL: &str = "sqlite://turnwise.db";
/// Where the API listens unless told otherwise.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7171";
/// How many jobs a node runs at once unless told otherwise.
pub const DEFAULT_CAPACITY: u32 = 16;
/// The most jobs that a node may run at once.
pub const CAPACITY_MAX: u32 = 1_000;
/// How long a node that was told to stop waits for its jobs unless told otherwise.
pub const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest such wait.
pub const DRAIN_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3_600);
/// The longest name of a queue or of a node, in bytes.
pub const NAME_BYTES_MAX: usize = 100;

/// The shortest token that keeps others out, in bytes.
const TOKEN_BYTES_MIN: usize = 16;
/// The longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 256;

/// Everything that a node is told before it runs, checked.
#[derive(Clone, PartialEq, Eq)]
pub struct RunConfig {
    /// The servers of the database: one, or a primary and its standbys. They may hold passwords: [`fmt::Debug`] leaves
    /// them out.
    pub database_urls: Vec<String>,
    /// The origins that jobs with a path are called on.
    pub targets: Targets,
    /// The origins that jobs may name in full.
    pub allow_origins: AllowedOrigins,
    /// The keys that calls are signed with, the current one first; none: they are not signed.
    pub signing_keys: SigningKeys,
    /// The node's name, for people.
    pub name: String,
    /// Where the API listens; none: nowhere.
    pub listen: Option<Listen>,
    /// What one must know to see the dashboard and to use the API; none: who reaches it may. [`fmt::Debug`] leaves it
    /// out.
    pub listen_token: Option<String>,
    /// Whose values, of headers and in bodies, are shown to nobody.
    pub redaction: Redaction,
    /// What the URLs of callbacks begin with; none: where the API listens.
    pub callback_url: Option<String>,
    /// The period that the database must have; none: whatever it has.
    pub period: Option<Period>,
    /// How many jobs the node runs at once, from 1 to [`CAPACITY_MAX`].
    pub capacity: u32,
    /// The queues that the node claims from; none: all.
    pub queues: Option<Vec<String>>,
    /// How long a node that was told to stop waits for its jobs, up to [`DRAIN_TIMEOUT_MAX`].
    pub drain_timeout: Duration,
    /// How long ended jobs are kept, each from [`KEEP_MIN`] to [`KEEP_MAX`] or for ever.
    pub retention: Retention,
    /// Exit when the database cannot be reached at the start, in place of waiting for it.
    pub fail_fast: bool,
    /// Bring the schema up to date at the start.
    pub migrate: bool,
    /// The file that the engine's journal is written to; none: nowhere.
    pub journal: Option<PathBuf>,
    /// How the log is written.
    pub log_format: LogFormat,
}

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address.
    pub address: SocketAddr,
    /// Whether somebody asked for it: then a node that cannot have it does not start.
    pub explicit: bool,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that was named cannot be read, or the one in the working directory is there and cannot.
    #[error("the configuration file {} cannot be read: {reason}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The file is not TOML.
    #[error("{}:{line}: not valid TOML: {reason}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The file has a key that is no setting.
    #[error("{}:{line}: there is no setting {key:?}. {}", path.display(), settings::hint(*nearest))]
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key.
        key: String,
        /// The setting that it resembles most, if any does.
        nearest: Option<&'static Setting>,
    },
    /// A value that the setting cannot have.
    #[error("{source}: {reason}", source = given)]
    Bad {
        /// Where the value came from.
        given: Source,
        /// What is wrong with it and what would be right.
        reason: String,
    },
}

impl RunConfig {
    /// The configuration that the layers add up to.
    pub fn from_layers(layers: &Layers) -> Result<Self, ConfigError> {
        let queues = queues(layers)?;
        Ok(Self {
            database_urls: database_urls(layers)?,
            targets: targets(layers, queues.as_deref())?,
            allow_origins: match layers.get("allow-origin") {
                Some(given) => AllowedOrigins::parse(given.values()).map_err(|e| given.bad(e))?,
                None => AllowedOrigins::default(),
            },
            signing_keys: signing::signing_keys(layers)?,
            name: name(layers)?,
            listen: listen(layers)?,
            listen_token: listen_token(layers)?,
            redaction: redaction(layers)?,
            callback_url: one(layers, "callback-url", parse_callback_url)?,
            period: one(layers, "period", parse_period)?,
            capacity: one(layers, "capacity", parse_capacity)?.unwrap_or(DEFAULT_CAPACITY),
            queues,
            drain_timeout: one(layers, "drain-timeout", parse_drain_timeout)?
                .unwrap_or(DEFAULT_DRAIN_TIMEOUT),
            retention: retention(layers)?,
            fail_fast: one(layers, "fail-fast", parse_switch)?.unwrap_or(false),
            migrate: !one(layers, "no-migrate", parse_switch)?.unwrap_or(false),
            journal: one(layers, "journal", parse_journal)?,
            log_format: one(layers, "log-format", parse_log_format)?.unwrap_or_default(),
        })
    }
}

/// The password in the database's URL is not shown.
impl fmt::Debug for RunConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            database_urls: _,
            targets,
            allow_origins,
            signing_keys,
            name,
            listen,
            listen_token: _,
            redaction,
            callback_url,
            period,
            capacity,
            queues,
            drain_timeout,
            retention,
            fail_fast,
            migrate,
            journal,
            log_format,
        } = self;
        f.debug_struct("RunConfig")
            .field("database_urls", &format_args!("…"))
            .field("targets", targets)
            .field("allow_origins", allow_origins)
            .field("signing_keys", signing_keys)
            .field("name", name)
            .field("listen", listen)
            .field("redaction", redaction)
            .field("callback_url", callback_url)
            .field("period", period)
            .field("capacity", capacity)
            .field("queues", queues)
            .field("drain_timeout", drain_timeout)
            .field("retention", retention)
            .field("fail_fast", fail_fast)
            .field("migrate", migrate)
            .field("journal", journal)
            .field("log_format", log_format)
            .finish()
    }
}

/// The servers of the database that the layers name. Their form is checked where they are opened.
pub fn database_urls(layers: &Layers) -> Result<Vec<String>, ConfigError> {
    let Some(given) = layers.get("database-url") else {
        return Ok(vec![DEFAULT_DATABASE_URL.to_owned()]);
    };
    match given.values() {
        [] => Err(given.bad("a database URL is empty")),
        urls => Ok(urls.to_vec()),
    }
}

/// A period from text such as `1s` or `250ms`, or what is wrong with it.
pub fn parse_period(text: &str) -> Result<Period, String> {
    let duration = parse_duration(text)?;
    Period::try_from(duration).map_err(|error| format!("{text:?} is no period: {error}"))
}

/// A duration from text such as `90s` or `1h 30m`, or what is wrong with it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| {
        format!("{text:?} is no duration: {error}; write it as 250ms, 30s, 10m or 1h")
    })
}

/// A queue's name, or what is wrong with it.
pub fn parse_queue(text: &str) -> Result<String, String> {
    let bad = |c: char| c.is_control() || c.is_whitespace() || c == ',' || c == '=';
    if text.is_empty() || text.len() > NAME_BYTES_MAX || text.contains(bad) {
        return Err(format!(
            "{text:?} cannot be a queue's name: it has 1 to {NAME_BYTES_MAX} bytes, and no space, comma or '='"
        ));
    }
    Ok(text.to_owned())
}

/// The value of a setting that has one, checked.
fn one<T>(
    layers: &Layers,
    key: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, ConfigError> {
    let Some(given) = layers.get(key) else { return Ok(None) };
    parse(given.value()).map(Some).map_err(|reason| given.bad(reason))
}

/// Whose values the layers say are shown to nobody.
pub(crate) fn redaction(layers: &Layers) -> Result<Redaction, ConfigError> {
    let names = |key, check: fn(&str) -> bool, what| match layers.get(key) {
        None => Ok(Vec::new()),
        Some(given) => match given.values().iter().find(|name| !check(name)) {
            Some(wrong) => Err(given.bad(format!("{wrong:?} cannot be {what}"))),
            None => Ok(given.values().to_vec()),
        },
    };
    let is_header = |name: &str| HeaderName::from_bytes(name.as_bytes()).is_ok();
    let headers =
        names("redact-header", is_header, "the name of a header; write it as X-Tenant-Key")?;
    let keys = names("redact-key", |key| key.len() <= NAME_BYTES_MAX, "a key: it is too long")?;
    Ok(Redaction::new(headers, keys))
}

fn retention(layers: &Layers) -> Result<Retention, ConfigError> {
    let Retention { succeeded, dead } = Retention::default();
    let keep = |key| one(layers, key, retention::parse_keep);
    Ok(Retention {
        succeeded: keep("keep-succeeded")?.unwrap_or(succeeded),
        dead: keep("keep-dead")?.unwrap_or(dead),
    })
}

fn queues(layers: &Layers) -> Result<Option<Vec<String>>, ConfigError> {
    let Some(given) = layers.get("queues") else { return Ok(None) };
    let mut queues = Vec::new();
    for text in given.values() {
        let queue = parse_queue(text).map_err(|reason| given.bad(reason))?;
        if !queues.contains(&queue) {
            queues.push(queue);
        }
    }
    if queues.is_empty() {
        return Err(given.bad("no queue is named; leave it out to claim from all"));
    }
    Ok(Some(queues))
}

fn targets(layers: &Layers, queues: Option<&[String]>) -> Result<Targets, ConfigError> {
    let given = layers.get("target");
    let targets = match &given {
        Some(given) => Targets::parse(given.values()).map_err(|error| given.bad(error))?,
        None => Targets::parse(&[Targets::DEFAULT])
            .map_err(|error| Source::Default("target").bad(error))?,
    };
    if let Some(given) = &given
        && targets.rest().is_none()
    {
        let missing = match queues {
            None => Some("the queues that are not named".to_owned()),
            Some(queues) => queues
                .iter()
                .find(|queue| targets.of(queue).is_none())
                .map(|queue| format!("queue {queue:?}")),
        };
        if let Some(missing) = missing {
            return Err(given.bad(format!(
                "there is no target for {missing}; add a target without a queue, or name in `queues` only those that have one"
            )));
        }
    }
    let host_header = one(layers, "target-host-header", |text| {
        if let Some(origin) = targets.origins().into_iter().find(|origin| origin.is_h2c()) {
            return Err(format!(
                "the target {origin} is called over HTTP/2, which has no Host header; put the name into its URL, or write \
                 http in place of h2c"
            ));
        }
        parse_host_header(text)
    })?;
    Ok(targets.with_host_header(host_header))
}

fn parse_host_header(text: &str) -> Result<HeaderValue, String> {
    let wrong =
        || format!("{text:?} cannot be a Host header; write it as app.example or app.example:8080");
    let url = url::Url::parse(&format!("http://{text}/")).map_err(|_| wrong())?;
    let is_host = url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none()
        && !text.contains(['/', '\\', '@', '?', '#']);
    if !is_host {
        return Err(wrong());
    }
    HeaderValue::from_str(text).map_err(|_| wrong())
}

fn name(layers: &Layers) -> Result<String, ConfigError> {
    let parse = |text: &str| {
        if text.trim().is_empty() || text.len() > NAME_BYTES_MAX || text.contains(char::is_control)
        {
            return Err(format!(
                "{text:?} cannot be a node's name: it has 1 to {NAME_BYTES_MAX} bytes in one line"
            ));
        }
        Ok(text.to_owned())
    };
    Ok(one(layers, "name", parse)?.unwrap_or_else(host_name))
}

fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "node".to_owned())
}

fn listen(layers: &Layers) -> Result<Option<Listen>, ConfigError> {
    let given = layers.get("listen");
    let text = given.as_ref().map_or(DEFAULT_LISTEN, |given| given.value());
    let source = given.as_ref().map_or(Source::Default("listen"), |given| given.source().clone());
    if text == "off" {
        return Ok(None);
    }
    let address: SocketAddr = text.parse().map_err(|_| {
        source
            .bad(format!("{text:?} is no address to listen on; write it as 127.0.0.1:7171, or off"))
    })?;
    if !address.ip().is_loopback() && layers.get("listen-token").is_none() {
        return Err(source.bad(format!(
            "{address} can be reached from other machines, and no token is asked for; set TURNWISE_LISTEN_TOKEN, or listen on 127.0.0.1 or [::1]"
        )));
    }
    Ok(Some(Listen { address, explicit: given.is_some() }))
}

fn listen_token(layers: &Layers) -> Result<Option<String>, ConfigError> {
    let Some(given) = layers.get("listen-token") else { return Ok(None) };
    let token = given.value();
    let is_good = token.bytes().all(|byte| byte.is_ascii_graphic());
    match token.len() {
        TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX if is_good => Ok(Some(token.to_owned())),
        // It is not repeated: it may be half of a good one.
        length => Err(given.bad(format!(
            "a token has {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} letters, digits and signs without spaces, this one has {length} bytes; make one with `openssl rand -hex 24`"
        ))),
    }
}

fn parse_callback_url(text: &str) -> Result<String, String> {
    let wrong = |why: &str| {
        format!(
            "{text:?} is no URL that callbacks can begin with: {why}; write it as https://jobs.example.com"
        )
    };
    let url = url::Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("its scheme is not http or https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "a URL that callbacks begin with names no user: every target would see it".to_owned()
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("the rest of it goes on with a path"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn parse_journal(text: &str) -> Result<PathBuf, String> {
    match text {
        "" => Err("the name of the journal's file is empty".to_owned()),
        path => Ok(PathBuf::from(path)),
    }
}

fn parse_capacity(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|capacity| (1..=CAPACITY_MAX).contains(capacity)).ok_or_else(|| {
        format!(
            "{text:?} is no capacity: it is how many jobs a node runs at once, a whole number from 1 to {CAPACITY_MAX}; for more, start more nodes, and for none, stop this one"
        )
    })
}

fn parse_drain_timeout(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    if duration > DRAIN_TIMEOUT_MAX {
        return Err(format!("{text:?} is too long: a node drains for at most 24h"));
    }
    Ok(duration)
}

fn parse_switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

fn parse_log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("{text:?} is no format of the log: it is text or json")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(flags: &[(&'static str, &str)]) -> Result<RunConfig, ConfigError> {
        let mut layers = Flags::default();
        for (key, value) in flags {
            layers.add(key, [*value]);
        }
        RunConfig::from_layers(&Layers::new(layers, &Environment::default(), None)?)
    }

    #[test]
    fn without_a_word_it_runs_with_the_defaults() {
        let config = run(&[]).unwrap();
        assert_eq!(config.database_urls, [DEFAULT_DATABASE_URL]);
        assert_eq!(config.targets.to_string(), Targets::DEFAULT);
        let address = DEFAULT_LISTEN.parse().unwrap();
        assert_eq!(config.listen, Some(Listen { address, explicit: false }));
        assert_eq!((config.period, config.queues.as_ref()), (None, None));
        assert_eq!((config.capacity, config.drain_timeout), (16, DEFAULT_DRAIN_TIMEOUT));
        assert_eq!(config.retention, Retention::default());
        assert!(config.migrate && !config.fail_fast && !config.name.is_empty());
    }

    #[test]
    fn good_values_are_taken() {
        let config = run(&[
            ("period", "250ms"),
            ("capacity", "1000"),
            ("queues", "mail, reports,mail"),
            ("target", "http://a:1,reports=http://b:2"),
            ("target-host-header", "app.example:8080"),
            ("allow-origin", "https://api.example"),
            ("listen", "[::1]:0"),
            ("drain-timeout", "0s"),
            ("keep-succeeded", "90m"),
            ("keep-dead", "forever"),
            ("fail-fast", "true"),
            ("no-migrate", "yes"),
            ("log-format", "json"),
            ("name", "web 1"),
        ])
        .unwrap();
        assert_eq!(config.period, Some(Period::from_millis(250).unwrap()));
        assert_eq!(config.queues, Some(vec!["mail".to_owned(), "reports".to_owned()]));
        assert_eq!(config.targets.to_string(), "http://a:1, reports=http://b:2");
        assert_eq!(config.targets.host_header().unwrap(), "app.example:8080");
        assert!(config.listen.unwrap().explicit);
        let kept = Keep::For(Duration::from_secs(5_400));
        assert_eq!(config.retention, Retention { succeeded: kept, dead: Keep::Forever });
        assert_eq!(config.log_format, LogFormat::Json);
        assert!(config.fail_fast && !config.migrate);
        assert_eq!(run(&[("listen", "off")]).unwrap().listen, None);
    }

    #[test]
    fn bad_values_are_refused_by_name() {
        let bad = [
            ("period", "49ms"),
            ("period", "11s"),
            ("period", "1.5ms"),
            ("period", "500500us"),
            ("period", "soon"),
            ("capacity", "0"),
            ("capacity", "1001"),
            ("capacity", "-1"),
            ("queues", ","),
            ("queues", "a b"),
            ("target", "127.0.0.1:8080"),
            ("target", "http://a/base"),
            ("target", "http://a,http://b"),
            ("target", "mail=http://a"),
            ("target-host-header", "a/b"),
            ("target-host-header", "u@a"),
            ("target-host-header", ""),
            ("allow-origin", "https://api.example/v1"),
            ("signing-key", "secret"),
            ("signing-key-file", "/no/such/file"),
            ("listen", "7171"),
            ("listen", "0.0.0.0:7171"),
            ("listen-token", "short"),
            ("listen-token", "sixteen and spaces"),
            ("drain-timeout", "25h"),
            ("drain-timeout", "30"),
            ("keep-succeeded", "59s"),
            ("keep-succeeded", "11y"),
            ("keep-dead", "30"),
            ("keep-dead", "never"),
            ("fail-fast", "maybe"),
            ("log-format", "xml"),
            ("name", " "),
            ("database-url", ""),
        ];
        for (key, value) in bad {
            let error = run(&[(key, value)]).unwrap_err();
            assert!(error.to_string().starts_with(&format!("--{key}: ")), "{error}");
        }
    }

    #[test]
    fn a_target_that_is_called_over_http_2_has_no_host_header() {
        let error = run(&[("target", "h2c://a:1"), ("target-host-header", "app.example")]);
        let error = error.unwrap_err().to_string();
        assert!(
            error.starts_with("--target-host-header: the target h2c://a:1 is called over"),
            "{error}"
        );
        let config = run(&[("target", "h2c://a:1,mail=http://b:2")]).unwrap();
        assert_eq!(config.targets.to_string(), "h2c://a:1, mail=http://b:2");
    }

    #[test]
    fn a_capacity_that_is_none_is_told_the_range_and_what_to_do() {
        for text in [
            "0",
            "1001",
            "1000000",
            "99999999999999999999",
            "-1",
            "1.5",
            "1e3",
            "0x10",
            "many",
            " ",
            "",
        ] {
            let error = run(&[("capacity", text)]).unwrap_err().to_string();
            for part in [&format!("{text:?}"), "from 1 to 1000", "start more nodes"] {
                assert!(error.contains(part), "{part} in {error}");
            }
        }
        for text in ["1", "1000"] {
            assert!(run(&[("capacity", text)]).is_ok(), "{text}");
        }
    }

    #[test]
    fn targets_by_queue_alone_serve_a_node_of_those_queues_alone() {
        let target = ("target", "mail=http://a");
        assert!(run(&[target, ("queues", "mail")]).is_ok());
        assert!(run(&[target, ("queues", "mail,reports")]).is_err());
    }

    #[test]
    fn other_machines_reach_it_only_with_a_token() {
        let anywhere = ("listen", "0.0.0.0:7171");
        assert!(run(&[anywhere]).unwrap_err().to_string().contains("TURNWISE_LISTEN_TOKEN"));
        let config = run(&[anywhere, ("listen-token", "0123456789abcdef")]).unwrap();
        assert_eq!(config.listen_token.as_deref(), Some("0123456789abcdef"));
        assert!(!format!("{config:?}").contains("0123456789abcdef"));
        let error = run(&[("listen-token", "0123456789abcde")]).unwrap_err();
        assert!(!error.to_string().contains("0123456789"), "{error}");
    }

    #[test]
    fn the_password_is_not_shown() {
        let config = run(&[("database-url", "postgres://u:secret@h/d")]).unwrap();
        assert!(!format!("{config:?}").contains("secret"));
    }
}
