//! `/v1/audit`: what people ordered, newest first. Who may see it is the door's to decide.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::params::Params;
use super::problem::{Details, Problem};
use super::v1::Shared;
use crate::json::EntryLine;
use crate::store::{AUDIT_SHOWN_MAX, Audit};
use crate::watch::{ANSWER_TIMEOUT, within};

/// So many entries are on a page unless another number is asked for.
const PAGE: u32 = 50;

/// Entries, newest first.
#[derive(Serialize, ToSchema)]
#[schema(as = Audit)]
struct Entries<'a> {
    /// The entries.
    entries: Vec<EntryLine<'a>>,
    /// The next page is asked for with this as `before`; null: this is the last.
    next: Option<i64>,
}

/// List what people ordered, newest first
///
/// Every change that was ordered over the API, on a page or by a command, for 90 days; of enqueues over the API, one a request,
/// those among the newest 100000 entries. Needs the role `operate`.
#[utoipa::path(get, path = "/v1/audit", tag = "audit", operation_id = "list_audit",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "At most so many; 50 unless it is given"),
        ("before" = Option<i64>, Query, description = "Only entries older than this one: the `next` of a page"),
    ),
    responses(
        (status = 200, description = "A page of entries", body = Entries),
        (status = "default", description = "Problem details", body = Details, content_type = "application/problem+json"),
    ))]
pub(super) async fn list(State(api): State<Shared>, uri: Uri) -> Result<Response, Problem> {
    let params = Params::of(&uri, &["limit", "before"])?;
    let limit = params.get("limit", limit)?.unwrap_or(PAGE);
    let before = params.get("before", |text| {
        text.parse().map_err(|_| "it is not the number of an entry".to_owned())
    })?;
    let entries = within(ANSWER_TIMEOUT, api.store().entries(before, limit)).await?;
    let is_full = entries.len() >= limit as usize;
    let next = entries.last().filter(|_| is_full).map(|entry| entry.id);
    let entries = entries.iter().map(EntryLine::new).collect();
    Ok(Json(Entries { entries, next }).into_response())
}

fn limit(text: &str) -> Result<u32, String> {
    let limit = text.parse().ok().filter(|limit| (1..=AUDIT_SHOWN_MAX).contains(limit));
    limit.ok_or_else(|| format!("{text:?} is not a number within 1 and {AUDIT_SHOWN_MAX}"))
}
