//! Requests that nobody would think of: chance makes them from pieces of right ones.

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::place::{JSON, LINES, Served, told};

/// Numbers that look random and are the same on every run.
struct Chance(rand_pcg::Pcg64Mcg);

impl Chance {
    fn below(&mut self, most: usize) -> usize {
        rand_core::Rng::next_u64(&mut self.0) as usize % most
    }

    fn one_of<'a, T>(&mut self, those: &'a [T]) -> &'a T {
        let place = self.below(those.len());
        &those[place]
    }

    /// Any JSON, mostly of the kind of what is asked for.
    fn value(&mut self, depth: usize) -> Value {
        let texts = [
            "",
            "/x",
            "1s",
            "24h",
            "25h",
            "-1",
            "mail",
            "\u{0}",
            "2027-01-31T09:00:00Z",
            "100/m",
            "GET",
            "00000000-0000-7000-8000-000000000001",
            "http://[::1]:9/",
            "é\u{1f980}",
            "404,422",
            "0 3 * * *",
        ];
        let numbers = [0, 1, -1, 5, 1_000, 1_000_001, i64::MAX, i64::MIN];
        match self.below(if depth > 2 { 6 } else { 9 }) {
            0..=2 => json!(*self.one_of(&texts)),
            3 => json!(*self.one_of(&numbers)),
            4 => json!([true, false][self.below(2)]),
            5 => [json!(null), json!(1.5), json!("q".repeat(300))][self.below(3)].clone(),
            6 => (0..self.below(4)).map(|_| self.value(depth + 1)).collect(),
            _ => self.object(depth + 1),
        }
    }

    /// An object of fields that some request knows, and one that none does.
    fn object(&mut self, depth: usize) -> Value {
        let fields = [
            "url",
            "queue",
            "method",
            "headers",
            "body",
            "json",
            "body_base64",
            "in",
            "at",
            "priority",
            "max_attempts",
            "deadline",
            "concurrency_key",
            "concurrency_per_key",
            "slow_down",
            "unique_key",
            "unique_for",
            "retry_wait",
            "asynchronous",
            "heartbeat",
            "id",
            "parent",
            "batch",
            "after",
            "on",
            "jobs",
            "on_success",
            "on_complete",
            "sealed",
            "name",
            "cron",
            "zone",
            "misfire",
            "misfire_limit",
            "concurrency",
            "rate",
            "burst",
            "permanent_statuses",
            "nonsense",
        ];
        let mut object = serde_json::Map::new();
        if self.below(2) == 0 {
            object.insert("url".to_owned(), json!("/x"));
        }
        for _ in 0..self.below(5) {
            let field = *self.one_of(&fields);
            let value = self.value(depth);
            object.insert(field.to_owned(), value);
        }
        Value::Object(object)
    }
}

/// Whatever is sent, the answer is one of the documented kinds, nothing is half done, and the node lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_so_strange_that_the_answer_is() {
    let served = Served::start(None).await;
    let mut chance = Chance(rand_core::SeedableRng::seed_from_u64(7));
    let kinds = [JSON, JSON, JSON, JSON, LINES, "text/plain", "application/json; charset=utf-8"];
    let id = "01990000-0000-7000-8000-000000000001";
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..600 {
        let paths = [
            (Method::POST, "/v1/jobs".to_owned()),
            (Method::POST, "/v1/batches".to_owned()),
            (Method::PUT, format!("/v1/schedules/s{}", chance.below(9))),
            (Method::PUT, format!("/v1/queues/q{}", chance.below(9))),
            (Method::POST, format!("/v1/batches/{id}/seal")),
            (Method::GET, format!("/v1/jobs?limit={}&batch={id}", chance.below(1_200))),
            (Method::GET, format!("/v1/batches?before={}", chance.one_of(&[id, "7", "%00"]))),
        ];
        let (method, path) = chance.one_of(&paths).clone();
        let body = match chance.below(12) {
            0 => (0..chance.below(9)).map(|_| chance.value(0)).collect::<Value>().to_string(),
            1 => chance.object(0).to_string()[1..].to_owned(),
            2 => "\u{feff}{}".to_owned(),
            3 => format!("{}{}", "[".repeat(200), "]".repeat(200)),
            _ => chance.object(0).to_string(),
        };
        let ask = served.ask(method.clone(), &path).header(CONTENT_TYPE, *chance.one_of(&kinds));
        let ask = if method == Method::GET { ask } else { ask.body(body.clone()) };
        let (status, told) = told(ask.send().await.unwrap()).await;
        assert!(status.as_u16() < 500, "{method} {path} {body}: {status} {told}");
        *(if status.is_success() { &mut taken } else { &mut refused }) += 1;
    }
    println!("    {taken} were taken, {refused} refused");
    assert!(taken > 50 && refused > 50, "{taken} were taken, {refused} refused");
    let (status, jobs) = served.get("/v1/jobs?limit=1000").await;
    assert_eq!(status, StatusCode::OK);
    let jobs = jobs["jobs"].as_array().unwrap().len();
    assert_eq!(jobs, served.count().await, "every job that is there can be read");
}
