//! Decides which paths of `/v1` there are, and what is said of those that there are not. The document that describes them
//! (OpenAPI 3.1) is made of the same functions that answer.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{Method, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Json, Router};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{OpenApi as Document, SecurityRequirement};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::bodies::Bodies;
use super::events::Listeners;
use super::params::Params;
use super::problem::{Details, Kind, Problem};
use super::{audit, batches, enqueue, events, jobs, nodes, queues, schedules};
use crate::cached::Cached;
use crate::store::{AnyStore, Tally};
use crate::watch::Hub;

/// How old counts may be.
const TALLY_AGE: Duration = Duration::from_secs(2);

/// What the answers are made of.
pub(super) struct Api {
    pub(super) hub: Hub,
    pub(super) bodies: Bodies,
    pub(super) listeners: Listeners,
    pub(super) tally: Cached<Tally>,
    document: Document,
}

pub(super) type Shared = Arc<Api>;

impl Api {
    pub(super) fn store(&self) -> &AnyStore {
        self.hub.store()
    }
}

/// What stands at the head of the document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Turnwise",
        description = "Jobs, batches, queues, schedules, nodes, events and audit of a farm. Times are RFC 3339, by the database's clock; errors are \
            problem details (RFC 9457)."
    ),
    tags(
        (name = "jobs", description = "HTTP calls that nodes make when they are due"),
        (name = "batches", description = "Jobs that belong together, and what runs when they have ended"),
        (name = "queues", description = "The lanes of jobs"),
        (name = "schedules", description = "Cron entries that insert jobs"),
        (name = "nodes", description = "The processes that take turns"),
        (name = "events", description = "What happens in the farm"),
        (name = "audit", description = "What people ordered"),
    ),
    modifiers(&Token)
)]
struct Head;

/// How a caller shows its token.
struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut Document) {
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        let components = document.components.get_or_insert_with(Default::default);
        components.add_security_scheme("token", bearer);
        let nothing: [&str; 0] = [];
        // On a loopback address without a token, none is asked for.
        let either = [SecurityRequirement::new("token", nothing), SecurityRequirement::default()];
        document.security = Some(either.into());
    }
}

/// The API over the database that `hub` reads. Who may come in is the dashboard's door to decide, beside whose pages it is served
/// ([`crate::dashboard::router`]); how large bodies may be is decided here.
pub fn v1(hub: Hub) -> Router {
    let (routes, document) = routes().split_for_parts();
    let api = Api {
        hub,
        bodies: Bodies::default(),
        listeners: Listeners::default(),
        tally: Cached::new(TALLY_AGE),
        document,
    };
    routes
        .method_not_allowed_fallback(other_method)
        .route("/v1", any(nowhere))
        .route("/v1/", any(nowhere))
        .route("/v1/{*path}", any(nowhere))
        .with_state(Arc::new(api))
}

fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(Head::openapi())
        .routes(routes!(jobs::list, enqueue::enqueue))
        .routes(routes!(jobs::show))
        .routes(routes!(jobs::retry))
        .routes(routes!(jobs::cancel))
        .routes(routes!(batches::list, batches::make))
        .routes(routes!(batches::show))
        .routes(routes!(batches::seal))
        .routes(routes!(batches::cancel))
        .routes(routes!(queues::list))
        .routes(routes!(queues::set))
        .routes(routes!(queues::pause))
        .routes(routes!(queues::resume))
        .routes(routes!(schedules::list))
        .routes(routes!(schedules::show, schedules::set, schedules::remove))
        .routes(routes!(schedules::pause))
        .routes(routes!(schedules::resume))
        .routes(routes!(schedules::run))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::drain))
        .routes(routes!(events::listen))
        .routes(routes!(audit::list))
        .routes(routes!(openapi))
}

/// Show this document
#[utoipa::path(get, path = "/v1/openapi.json", operation_id = "openapi", tag = "document",
    responses(
        (status = 200, description = "OpenAPI 3.1", body = Object),
        (status = "default", description = "Problem details", body = Details, content_type = "application/problem+json"),
    ))]
async fn openapi(State(api): State<Shared>, uri: Uri) -> Result<Response, Problem> {
    Params::of(&uri, &[])?;
    Ok(Json(&api.document).into_response())
}

async fn nowhere(uri: Uri) -> Problem {
    let say = format!("there is no path {:?}", uri.path());
    Problem::new(Kind::UnknownPath, say, "GET /v1/openapi.json describes those that there are")
}

async fn other_method(method: Method, uri: Uri) -> Problem {
    let say = format!("{:?} does not know the method {method}", uri.path());
    Problem::new(Kind::Method, say, "The header Allow names those that it knows")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_described_with_its_errors() {
        let document = serde_json::to_value(routes().into_openapi()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let methods: usize = paths.values().map(|path| path.as_object().unwrap().len()).sum();
        assert_eq!((paths.len(), methods), (22, 26), "{:?}", paths.keys());
        for (path, operations) in paths {
            for (method, operation) in operations.as_object().unwrap() {
                let problem =
                    &operation["responses"]["default"]["content"]["application/problem+json"];
                assert!(problem.is_object(), "{method} {path}");
                let summary = operation["summary"].as_str().unwrap_or_default();
                assert!(!summary.is_empty(), "{method} {path}");
            }
        }
        // Whatever is referred to is there.
        let text = document.to_string();
        for name in text.split("#/components/schemas/").skip(1) {
            let name = name.split('"').next().unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
        let job = &document["components"]["schemas"]["NewJob"];
        assert_eq!(job["required"], serde_json::json!(["url"]), "{job}");
        assert!(job["properties"]["json"].get("type").is_none(), "any JSON: {job}");
    }
}
