//! Decides where the log goes and how it looks. What is logged is not decided here.

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use super::failure::Failure;
use crate::config::LogFormat;
use crate::exit;

/// Says what is logged, as in `debug` or `info,turnwise_node::shell=trace`.
const FILTER_VARIABLE: &str = "TURNWISE_LOG";
const DEFAULT_FILTER: &str = "info";

/// Send warnings alone to stderr, for commands that print something else.
pub(super) fn start_warnings() {
    let warnings = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .without_time()
        .with_target(false)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .with_writer(io::stderr);
    // Another log is as good.
    let _ = warnings.try_init();
}

/// Send the log of this process to stderr.
pub(super) fn start(format: LogFormat) -> Result<(), Failure> {
    let text = std::env::var(FILTER_VARIABLE).unwrap_or_default();
    let text = if text.is_empty() { DEFAULT_FILTER } else { &text };
    let filter = EnvFilter::try_new(text).map_err(|error| Failure {
        code: exit::BAD_CONFIGURATION,
        message: format!("{FILTER_VARIABLE}: {text:?} is no filter of the log: {error}; write it as info or debug"),
    })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_writer(io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init(),
        LogFormat::Json => log.json().with_ansi(false).init(),
    }
    Ok(())
}
