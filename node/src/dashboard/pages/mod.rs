//! What is on each page, one file for each.

pub(super) mod nodes;
pub(super) mod ring;

use axum::http::StatusCode;
use maud::{Markup, html};

use super::page;

/// The answer to an address that does not exist.
pub(super) async fn nowhere() -> (StatusCode, Markup) {
    let page = page::bare(
        "Not found",
        &html! {
            h1 { "There is no such page" }
            p { a href="/" { "To the ring" } }
        },
    );
    (StatusCode::NOT_FOUND, page)
}
