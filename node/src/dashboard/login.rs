//! Decides how somebody who knows the token comes in by a browser: it is shown once, and a cookie remembers that.

use axum::extract::{Form, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::Shared;
use super::page;

#[derive(Deserialize)]
pub(super) struct Shown {
    #[serde(default)]
    token: String,
}

pub(super) async fn show() -> Markup {
    ask(None)
}

pub(super) async fn enter(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Form(shown): Form<Shown>,
) -> Response {
    if !shared.door.opens(shown.token.trim()) {
        let say = "That is not the token of this node: it is the value of its --listen-token.";
        return (StatusCode::FORBIDDEN, ask(Some(say))).into_response();
    }
    let mut response = Redirect::to("/").into_response();
    if let Some(cookie) = shared.door.cookie(&headers) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

fn ask(wrong: Option<&str>) -> Markup {
    page::bare(
        "Token",
        &html! {
            h1 { "Turnwise" }
            @if let Some(wrong) = wrong { p .said.refused role="alert" { (wrong) } }
            form .login method="post" action="/login" {
                label for="token" { "Token of this node" }
                input #token type="password" name="token" required autocomplete="current-password";
                button { "Come in" }
            }
        },
    )
}
