//! A shop that sends a receipt for each order, by a job: axum and SQLite. Decides what an app has to do for its jobs: enqueue in
//! its own transaction, verify who calls, and do each job once.

use std::error::Error;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use standardwebhooks::Webhook;
use tokio::net::TcpListener;
use turnwise_node::client;
use turnwise_node::job::NewJob;
use turnwise_node::sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use turnwise_node::sqlx::{self, Row};

const TABLES: [&str; 4] = [
    "CREATE TABLE IF NOT EXISTS stock (item TEXT PRIMARY KEY, pieces INTEGER NOT NULL CHECK (pieces >= 0))",
    "CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, item TEXT NOT NULL, receipts INTEGER NOT NULL DEFAULT 0)",
    "CREATE TABLE IF NOT EXISTS done (job TEXT PRIMARY KEY)",
    "INSERT OR IGNORE INTO stock VALUES ('tea', 1), ('coffee', 1000)",
];

/// What every request needs.
#[derive(Clone)]
struct Shop {
    database: SqlitePool,
    webhook: Arc<Webhook>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let setting = |name: &str, default: &str| std::env::var(name).unwrap_or(default.to_owned());
    let key =
        std::env::var("SIGNING_KEY").map_err(|_| "SIGNING_KEY is not set: the nodes have it")?;
    let listener = TcpListener::bind(format!("127.0.0.1:{}", setting("PORT", "8080"))).await?;
    println!("listening on http://{}", listener.local_addr()?);
    serve(listener, &setting("DATABASE", "turnwise.db"), &key).await
}

/// Serve the shop, for ever.
pub(crate) async fn serve(
    listener: TcpListener,
    file: &str,
    key: &str,
) -> Result<(), Box<dyn Error>> {
    let options = SqliteConnectOptions::from_str(&format!("sqlite://{file}"))?;
    let options = options.busy_timeout(Duration::from_secs(5));
    let database = SqlitePool::connect_with(options).await?;
    for table in TABLES {
        sqlx::query(table).execute(&database).await?;
    }
    let shop = Shop { database, webhook: Arc::new(Webhook::new(key.trim())?) };
    let routes = Router::new()
        .route("/orders", post(order))
        .route("/orders/{id}", get(show))
        .route("/jobs/receipt", post(send_receipt))
        .with_state(shop);
    Ok(axum::serve(listener, routes).await?)
}

#[derive(Deserialize)]
struct Wish {
    item: String,
}

/// Take an order. Its job exists exactly if the order does: one transaction holds both.
async fn order(State(shop): State<Shop>, Json(wish): Json<Wish>) -> Result<Response, Failed> {
    let mut transaction = shop.database.begin_with("BEGIN IMMEDIATE").await?;
    let order = sqlx::query("INSERT INTO orders (item) VALUES (?)").bind(&wish.item);
    let order = order.execute(&mut *transaction).await?.last_insert_rowid();
    let job = NewJob::new(format!("/jobs/receipt?order={order}"));
    client::in_sqlite(&mut transaction, &[job]).await?;
    // Fails when there is none left; then there is no order, and no job.
    let taken = sqlx::query("UPDATE stock SET pieces = pieces - 1 WHERE item = ?").bind(&wish.item);
    match taken.execute(&mut *transaction).await {
        Err(sqlx::Error::Database(error)) if error.is_check_violation() => {
            return Ok((StatusCode::CONFLICT, "there is none left").into_response());
        }
        other => other?,
    };
    transaction.commit().await?;
    Ok((StatusCode::CREATED, Json(json!({ "order": order }))).into_response())
}

#[derive(Deserialize)]
struct Receipt {
    order: i64,
}

/// The body of a call whose job has none.
#[derive(Deserialize)]
struct Envelope {
    id: String,
    method: String,
    url: String,
}

/// Do a job, once: what was done and that it was done are written in one transaction.
async fn send_receipt(
    State(shop): State<Shop>,
    Query(receipt): Query<Receipt>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Failed> {
    let Some(envelope) = verified(&shop.webhook, &method, &uri, &headers, &body) else {
        let said = "this is not from a node that knows the key";
        return Ok((StatusCode::UNAUTHORIZED, said).into_response());
    };
    let mut transaction = shop.database.begin_with("BEGIN IMMEDIATE").await?;
    let new = sqlx::query("INSERT OR IGNORE INTO done VALUES (?)").bind(&envelope.id);
    if new.execute(&mut *transaction).await?.rows_affected() == 1 {
        let sent = sqlx::query("UPDATE orders SET receipts = receipts + 1 WHERE id = ?");
        sent.bind(receipt.order).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok("sent".into_response())
}

/// The envelope, if whoever sent it knows the key and it is about this very request: a query stands nowhere else where it is
/// signed.
fn verified(
    webhook: &Webhook,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &[u8],
) -> Option<Envelope> {
    webhook.verify(body, headers).ok()?;
    let envelope: Envelope = serde_json::from_slice(body).ok()?;
    let called: Uri = envelope.url.parse().ok()?;
    let is_this =
        envelope.method == method.as_str() && called.path_and_query() == uri.path_and_query();
    is_this.then_some(envelope)
}

async fn show(State(shop): State<Shop>, Path(id): Path<i64>) -> Result<Response, Failed> {
    let row = sqlx::query("SELECT item, receipts FROM orders WHERE id = ?").bind(id);
    let Some(row) = row.fetch_optional(&shop.database).await? else {
        return Ok((StatusCode::NOT_FOUND, "no such order").into_response());
    };
    let (item, receipts): (String, i64) = (row.try_get("item")?, row.try_get("receipts")?);
    Ok(Json(json!({ "item": item, "receipts": receipts })).into_response())
}

/// What went wrong here: 500, so that a job is tried again.
struct Failed(Box<dyn Error>);

impl<E: Into<Box<dyn Error>>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        eprintln!("failed: {}", self.0);
        (StatusCode::INTERNAL_SERVER_ERROR, "failed").into_response()
    }
}
