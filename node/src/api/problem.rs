//! Decides how an error of `/v1` is told: problem details (RFC 9457) that name what was asked for, why it was not done and what
//! to do about it. Which error it is, is decided where it happens.

use axum::Json;
use axum::http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use turnwise_engine::Fate;
use utoipa::ToSchema;

use crate::batch::BatchRefusal;
use crate::job::JobState;
use crate::store::StoreError;

/// The content type of problem details: RFC 9457, section 3.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";
/// So many wrong fields are told at most.
const FAULTS_MAX: usize = 20;

/// What kind of error it is. Its word is promised to programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The address, a parameter or a header is wrong.
    BadRequest,
    /// The body is not JSON.
    BadJson,
    /// No token, or one that does not open.
    NoToken,
    /// The request comes from a page of another site.
    OtherSite,
    /// The token opens less than this.
    Role,
    /// There is no such path.
    UnknownPath,
    /// There is no such job, batch, schedule or node.
    Unknown,
    /// The path has no such method.
    Method,
    /// The body did not come in time.
    TooSlow,
    /// What is the case does not allow it.
    Conflict,
    /// The body is too large.
    TooLarge,
    /// The body is of a type that is not read.
    ContentType,
    /// The request is for another address.
    OtherHost,
    /// What stands in the body cannot be.
    Invalid,
    /// The database failed, and waiting will not mend it.
    Database,
    /// As many ask as may.
    Busy,
    /// The database is away or in difficulties.
    DatabaseAway,
}

impl Kind {
    const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest | Self::BadJson => StatusCode::BAD_REQUEST,
            Self::NoToken => StatusCode::UNAUTHORIZED,
            Self::OtherSite | Self::Role => StatusCode::FORBIDDEN,
            Self::UnknownPath | Self::Unknown => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::OtherHost => StatusCode::MISDIRECTED_REQUEST,
            Self::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Database => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Busy | Self::DatabaseAway => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Its word, and its name for people.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::BadRequest => ("bad-request", "The request cannot be understood"),
            Self::BadJson => ("bad-json", "The body is not JSON"),
            Self::NoToken => ("no-token", "A token is needed"),
            Self::OtherSite => ("other-site", "The request comes from another site"),
            Self::Role => ("role", "The token opens less than this"),
            Self::UnknownPath => ("unknown-path", "There is no such path"),
            Self::Unknown => ("unknown", "There is no such thing"),
            Self::Method => ("method", "The path does not know this method"),
            Self::TooSlow => ("too-slow", "The body did not come in time"),
            Self::Conflict => ("conflict", "What is the case does not allow it"),
            Self::TooLarge => ("too-large", "The body is too large"),
            Self::ContentType => ("content-type", "The body is of a type that is not read"),
            Self::OtherHost => ("other-host", "The request is for another address"),
            Self::Invalid => ("invalid", "What stands in the body cannot be"),
            Self::Database => ("database", "The database failed"),
            Self::Busy => ("busy", "As many ask as may"),
            Self::DatabaseAway => ("database-away", "The database does not answer"),
        }
    }
}

/// A field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Fault {
    /// Which: a parameter, a header, or the way to it in the body, such as `[3].headers.X-Tenant`.
    pub(crate) field: String,
    /// Why it cannot be, and what can.
    pub(crate) reason: String,
}

impl Fault {
    pub(crate) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

/// An error, as it is told.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    kind: Kind,
    detail: String,
    remedy: String,
    errors: Vec<Fault>,
    state: Option<JobState>,
    done: Option<usize>,
}

/// Problem details: RFC 9457.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Details<'a> {
    /// Which kind of error it is: `urn:turnwise:problem:` and a word.
    #[serde(rename = "type")]
    kind: String,
    /// The kind in words, always the same.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What was wrong this time.
    detail: &'a str,
    /// What to do about it.
    remedy: &'a str,
    /// The fields that are wrong, at most 20.
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    #[schema(required = false)]
    errors: &'a [Fault],
    /// The state of the job that does not allow it.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<JobState>,
    /// Of many jobs, so many were enqueued before it was broken off: the first ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<usize>,
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (detail, remedy) = (detail.into(), remedy.into());
        Self { kind, detail, remedy, errors: Vec::new(), state: None, done: None }
    }

    /// Fields are wrong.
    pub(crate) fn faults(kind: Kind, mut errors: Vec<Fault>) -> Self {
        let more = errors.len().saturating_sub(FAULTS_MAX);
        errors.truncate(FAULTS_MAX);
        let told: Vec<String> =
            errors.iter().map(|fault| format!("{}: {}", fault.field, fault.reason)).collect();
        let mut detail = told.join("; ");
        if more > 0 {
            detail.push_str(&format!("; and {more} more"));
        }
        Self { errors, ..Self::new(kind, detail, "Nothing was done: correct it and send it again") }
    }

    /// One field is wrong.
    pub(crate) fn fault(kind: Kind, field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::faults(kind, vec![Fault::new(field, reason)])
    }

    /// The fields that are wrong.
    pub(crate) fn into_faults(self) -> Vec<Fault> {
        self.errors
    }

    /// There is no such thing.
    pub(crate) fn unknown(what: &str, id: &str, remedy: &str) -> Self {
        Self::new(Kind::Unknown, format!("there is no {what} {id:?} in this database"), remedy)
    }

    /// The state of a job does not allow it.
    pub(crate) fn with_state(self, state: Option<JobState>) -> Self {
        Self { state, ..self }
    }

    /// So many of the jobs were enqueued all the same.
    pub(crate) fn with_done(self, done: usize) -> Self {
        Self { done: Some(done), ..self }
    }

    /// Of several, the one at this place.
    pub(crate) fn at(self, place: usize) -> Self {
        self.below(&format!("[{place}]"))
    }

    /// What is wrong with a part of the body, to which this is the way.
    pub(crate) fn below(mut self, way: &str) -> Self {
        for fault in &mut self.errors {
            fault.field = format!("{way}.{}", fault.field);
        }
        Self { detail: format!("{way}: {}", self.detail), ..self }
    }

    /// What was wrong, in words.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let is_unknown = error.fate() == Fate::Unknown;
        let detail = error.to_string();
        match error {
            StoreError::TooLong { what, .. } => Self::fault(Kind::Invalid, what, detail),
            StoreError::Batch(refusal) => refused(&refusal, detail),
            error if error.is_transient() => {
                let remedy = match is_unknown {
                    true => {
                        "It is not known whether it was done. Ask again in a moment: with the same ids or the same \
                         Idempotency-Key nothing is enqueued twice"
                    }
                    false => "Nothing was done. Ask again in a moment",
                };
                Self::new(Kind::DatabaseAway, detail, remedy)
            }
            _ => Self::new(
                Kind::Database,
                detail,
                "The log of the node, and the database's, tell more",
            ),
        }
    }
}

/// A job or a batch cannot be made, as far as batches go: a field names what cannot be, or what is the case does not allow it.
fn refused(refusal: &BatchRefusal, detail: String) -> Problem {
    let field = match refusal {
        BatchRefusal::Unknown(_) => "batch",
        BatchRefusal::NoJob(_) | BatchRefusal::Cycle(..) | BatchRefusal::WaitsForMany(_) => "after",
        BatchRefusal::TwoTimes => "scheduled_at",
        BatchRefusal::LongName(_) => "name",
        BatchRefusal::Ended(..)
        | BatchRefusal::TriedAgain(..)
        | BatchRefusal::OfAnother(..)
        | BatchRefusal::Exists(_) => {
            let remedy = "Nothing was done; GET /v1/batches/{id} says how far the batch is";
            return Problem::new(Kind::Conflict, detail, remedy);
        }
    };
    Problem::fault(Kind::Invalid, field, detail)
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let ((word, title), status) = (self.kind.words(), self.kind.status());
        let details = Details {
            kind: format!("urn:turnwise:problem:{word}"),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            remedy: &self.remedy,
            errors: &self.errors,
            state: self.state,
            done: self.done,
        };
        let mut response = (status, Json(details)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        let more: Option<(HeaderName, &'static str)> = match self.kind {
            Kind::NoToken => Some((WWW_AUTHENTICATE, "Bearer")),
            Kind::Busy | Kind::DatabaseAway => Some((RETRY_AFTER, "1")),
            // What is left of the body is not waited for.
            Kind::TooLarge | Kind::TooSlow => Some((CONNECTION, "close")),
            _ => None,
        };
        if let Some((name, value)) = more {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use uuid::Uuid;

    use super::*;
    use crate::batch::{BatchId, BatchState};

    async fn told(problem: Problem) -> (StatusCode, serde_json::Value) {
        let response = problem.into_response();
        assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn a_wrong_field_is_named_with_the_reason_and_the_remedy() {
        let problem = Problem::fault(Kind::Invalid, "queue", "it is empty").at(3);
        let (status, told) = told(problem).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(told["type"], "urn:turnwise:problem:invalid");
        assert_eq!(told["status"], 422);
        assert_eq!(told["errors"][0]["field"], "[3].queue");
        assert_eq!(told["errors"][0]["reason"], "it is empty");
        assert_eq!(told["detail"], "[3]: queue: it is empty");
        assert!(told["remedy"].as_str().unwrap().contains("Nothing was done"));
        assert!(told.get("state").is_none() && told.get("done").is_none());
    }

    #[tokio::test]
    async fn of_many_wrong_fields_the_first_are_told() {
        let faults = (0..25).map(|i| Fault::new(format!("f{i}"), "no")).collect();
        let (_, told) = told(Problem::faults(Kind::Invalid, faults)).await;
        assert_eq!(told["errors"].as_array().unwrap().len(), FAULTS_MAX);
        assert!(told["detail"].as_str().unwrap().ends_with("; and 5 more"));
    }

    #[tokio::test]
    async fn what_a_batch_does_not_allow_is_told_as_what_it_is() {
        let batch = BatchId(Uuid::from_u128(7));
        let (status, unknown) = told(StoreError::Batch(BatchRefusal::Unknown(batch)).into()).await;
        assert_eq!(
            (status, &unknown["errors"][0]["field"]),
            (StatusCode::UNPROCESSABLE_ENTITY, &"batch".into())
        );
        let ended = BatchRefusal::Ended(batch, BatchState::Failed);
        let (status, ended) = told(StoreError::Batch(ended).into()).await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert!(ended["detail"].as_str().unwrap().contains("failed"), "{ended}");
    }

    #[tokio::test]
    async fn what_is_not_known_of_the_database_is_said() {
        let away = |fate| StoreError::Unreachable {
            database: "sqlite://x".to_owned(),
            reason: "no".to_owned(),
            fate,
        };
        let (status, unknown) = told(away(Fate::Unknown).into()).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(unknown["remedy"].as_str().unwrap().contains("not known whether"));
        let (_, not_sent) = told(away(Fate::NotSent).into()).await;
        assert!(not_sent["remedy"].as_str().unwrap().starts_with("Nothing was done"));
    }
}
