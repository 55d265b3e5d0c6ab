//! Decides the frame of every page, and how values look in it. What is on a page is decided in `pages`.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};
use serde::Deserialize;
use turnwise_engine::ServerInstant;
use uuid::Uuid;

use super::{Action, Shared};
use crate::rfc3339;
use crate::store::{NodeView, StoreError};

/// The address of an asset, another one with each version.
macro_rules! asset {
    ($name:literal) => {
        concat!("/assets/", $name, "?v=", env!("CARGO_PKG_VERSION"))
    };
}

/// The pages that are linked from every page.
const PLACES: [(&str, &str); 8] = [
    ("/", "Ring"),
    ("/timeline", "Timeline"),
    ("/nodes", "Nodes"),
    ("/jobs", "Jobs"),
    ("/batches", "Batches"),
    ("/queues", "Queues"),
    ("/schedules", "Schedules"),
    ("/audit", "Audit"),
];
/// How often a page that is live is loaded again by a browser without JavaScript, in seconds.
const AGAIN_SECONDS: u32 = 3;

/// What any page may be asked with.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Asked {
    /// The key to what is to be said.
    pub(super) said: Option<Uuid>,
    /// Only what changes of the page: the script asks for it.
    pub(super) part: Option<String>,
}

/// A page with everything around it. `here` is its path. It is live: what stands in elements with `data-live` is put
/// up to date as things happen, and without JavaScript every few seconds.
pub(super) fn live(
    shared: &Shared,
    title: &str,
    here: &str,
    asked: &Asked,
    body: &Markup,
) -> Response {
    if asked.part.is_some() {
        return body.clone().into_response();
    }
    let head = html! {
        script src=(asset!("live.js")) defer {}
        noscript { meta http-equiv="refresh" content=(AGAIN_SECONDS); }
    };
    framed(shared, title, here, asked, &head, body)
}

/// A page with everything around it that stays as it is. `here` is the path of the page that it belongs to.
pub(super) fn still(
    shared: &Shared,
    title: &str,
    here: &str,
    asked: &Asked,
    body: &Markup,
) -> Response {
    framed(shared, title, here, asked, &html! {}, body)
}

fn framed(
    shared: &Shared,
    title: &str,
    here: &str,
    asked: &Asked,
    head: &Markup,
    body: &Markup,
) -> Response {
    let word = asked.said.and_then(|key| shared.said.get(key));
    let body = html! {
        header .top {
            a .skip href="#main" { "To the content" }
            a .brand href="/" { "Turnwise" }
            nav aria-label="Pages" {
                @for (path, name) in PLACES {
                    a href=(path) aria-current=[(path == here).then_some("page")] { (name) }
                }
            }
            p #link .link { }
        }
        main #main tabindex="-1" {
            @if let Some(word) = word {
                p .said .refused[!word.done] role="status" { (word.text) }
            }
            (body)
        }
        p #alarm .unseen role="status" aria-live="polite" { }
    };
    whole(title, head, &body).into_response()
}

/// A page with nothing around it.
pub(super) fn bare(title: &str, body: &Markup) -> Markup {
    whole(title, &html! {}, &html! { main #main .bare { (body) } })
}

fn whole(title: &str, head: &Markup, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Turnwise" }
                link rel="icon" type="image/svg+xml" href=(asset!("icon.svg"));
                link rel="stylesheet" href=(asset!("style.css"));
                (head)
            }
            body { (body) }
        }
    }
}

/// What is shown when the database does not answer.
pub(super) fn failed(error: &StoreError) -> Response {
    let head = html! { meta http-equiv="refresh" content=(AGAIN_SECONDS); };
    let body = html! {
        main #main .bare {
            h1 { "The database does not answer" }
            p { (error.to_string()) }
            p .quiet { "This page tries again every " (AGAIN_SECONDS) " seconds." }
        }
    };
    (StatusCode::SERVICE_UNAVAILABLE, whole("No answer", &head, &body)).into_response()
}

/// What is said of something that does not exist.
pub(super) fn missing(what: &str, why: &str, to: &str, link: &str) -> Response {
    let body = html! {
        h1 { (what) }
        @if !why.is_empty() { p { (why) } }
        p { a href=(to) { (link) } }
    };
    (StatusCode::NOT_FOUND, bare("Not found", &body)).into_response()
}

/// Buttons, in one form. `to` is where the form goes, `back` the page that it is on.
pub(super) fn buttons(to: &str, back: &str, actions: &[Action]) -> Markup {
    html! {
        @if !actions.is_empty() {
            form .actions method="post" action=(to) {
                input type="hidden" name="back" value=(back);
                @for action in actions {
                    button name="action" value=(action.name) title=(action.hint) { (action.label) }
                }
            }
        }
    }
}

/// The buttons for a node, where whoever serves this offers any.
pub(super) fn node_buttons(shared: &Shared, back: &str, node: &NodeView) -> Markup {
    let actions = shared.controls.as_ref().map(|controls| controls.for_node(node));
    buttons(&format!("/nodes/{}/do", node.id), back, &actions.unwrap_or_default())
}

/// A state as a word with a mark, so that it does not live by its colour.
pub(super) fn state(state: &str) -> Markup {
    html! { span .state data-state=(state) { (state) } }
}

/// Microseconds as milliseconds, with as many places as mean something: `0.07`, `12.3`, `1500`.
pub(super) fn millis(us: i64) -> String {
    let sign = if us < 0 { "−" } else { "" };
    let size = us.unsigned_abs();
    match size {
        0..10_000 => format!("{sign}{}.{:02}", size / 1_000, size % 1_000 / 10),
        10_000..1_000_000 => format!("{sign}{}.{}", size / 1_000, size % 1_000 / 100),
        _ => format!("{sign}{}", size / 1_000),
    }
}

/// A span of time in one unit: `340 ms`, `4.2 s`, `38 s`, `12 min`, `3 h`, `5 d`.
pub(super) fn span(us: i64) -> String {
    let seconds = us.saturating_abs() / 1_000_000;
    match seconds {
        0 => format!("{} ms", us.saturating_abs() / 1_000),
        1..10 => format!("{}.{} s", seconds, us.saturating_abs() % 1_000_000 / 100_000),
        10..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// An instant, by how far it is from `now`; the whole of it where the pointer rests.
pub(super) fn moment(at: ServerInstant, now: ServerInstant) -> Markup {
    let text = rfc3339::format(at);
    let age = now.as_micros().saturating_sub(at.as_micros());
    let words = match age {
        ..0 => format!("in {}", span(age)),
        0..1_000_000 => "just now".to_owned(),
        _ => format!("{} ago", span(age)),
    };
    html! { time datetime=(text) title=(text) { (words) } }
}

/// The beginning of a text, at most so many characters, in one line.
pub(super) fn short(text: &str, length: usize) -> String {
    let mut kept: String = text.chars().take(length).map(visible).collect();
    if text.chars().count() > length {
        kept.pop();
        kept.push('…');
    }
    kept
}

/// What would turn the direction of writing, or be no character at all, is made visible.
fn visible(c: char) -> char {
    match c {
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_places_that_mean_something() {
        assert_eq!([millis(70), millis(-12_345), millis(1_500_000)], ["0.07", "−12.3", "1500"]);
        assert_eq!([span(400_000), span(-38_000_000)], ["400 ms", "38 s"]);
        assert_eq!([span(720_000_000), span(i64::MIN)], ["12 min", "106751991 d"]);
    }

    #[test]
    fn texts_are_cut_and_cannot_turn_the_line() {
        assert_eq!(short("abcdef", 4), "abc…");
        assert_eq!(short("a\u{202e}b\n", 9), "a\u{fffd}b\u{fffd}");
    }
}
