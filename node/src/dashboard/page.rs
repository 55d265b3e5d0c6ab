//! Decides the frame of every page, and how values look in it. What is on a page is decided in `pages`.

use axum::http::StatusCode;
use maud::{DOCTYPE, Markup, html};
use serde::Deserialize;
use uuid::Uuid;

use super::{Action, Shared};
use crate::store::StoreError;

/// The address of an asset, another one with each version.
macro_rules! asset {
    ($name:literal) => {
        concat!("/assets/", $name, "?v=", env!("CARGO_PKG_VERSION"))
    };
}

/// The pages that are linked from every page.
const PLACES: [(&str, &str); 2] = [("/", "Ring"), ("/nodes", "Nodes")];

/// What any page may be asked with.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Asked {
    /// The key to what is to be said.
    pub(super) said: Option<Uuid>,
}

/// A page with everything around it. `here` is its path; it is live: it shows what happens as it happens, and
/// without JavaScript as of every few seconds.
pub(super) fn live(
    shared: &Shared,
    title: &str,
    here: &str,
    asked: &Asked,
    body: &Markup,
) -> Markup {
    let word = asked.said.and_then(|key| shared.said.get(key));
    whole(
        title,
        &html! {
            script src=(asset!("live.js")) defer {}
            noscript { meta http-equiv="refresh" content="3"; }
        },
        &html! {
            header .top {
                a .skip href="#main" { "To the content" }
                a .brand href="/" { "Turnwise" }
                nav aria-label="Pages" {
                    @for (path, name) in PLACES {
                        a href=(path) aria-current=[(path == here).then_some("page")] { (name) }
                    }
                }
            }
            main #main {
                @if let Some(word) = word {
                    p .said .refused[!word.done] role="status" { (word.text) }
                }
                (body)
            }
        },
    )
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
pub(super) fn failed(error: &StoreError) -> (StatusCode, Markup) {
    let page = bare(
        "No answer",
        &html! {
            h1 { "The database does not answer" }
            p { (error.to_string()) }
            p { a href="" { "Try again" } }
        },
    );
    (StatusCode::SERVICE_UNAVAILABLE, page)
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
