//! The sample app that the demo's jobs are calls of. Decides how each call goes: most go well, some take long, some
//! fail and go well later, a few never will.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use rand_core::Rng;
use rand_pcg::Pcg64Mcg;
use tokio::net::TcpListener;

type Chance = Arc<Mutex<Pcg64Mcg>>;

/// How a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Course {
    takes: Duration,
    status: StatusCode,
    says: &'static str,
}

/// Listen on a free port of loopback, and answer until this process ends.
pub(crate) async fn open(chance: Pcg64Mcg) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let routes = Router::new()
        .route("/jobs/mail", post(|chance| answer(chance, mail)))
        .route("/jobs/report", post(|chance| answer(chance, report)))
        .route("/jobs/flaky", post(|chance| answer(chance, flaky)))
        .with_state(Arc::new(Mutex::new(chance)));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(address)
}

async fn answer(
    State(chance): State<Chance>,
    course: fn(u32) -> Course,
) -> (StatusCode, &'static str) {
    let drawn = chance.lock().unwrap_or_else(PoisonError::into_inner).next_u32();
    let Course { takes, status, says } = course(drawn);
    tokio::time::sleep(takes).await;
    (status, says)
}

const fn well(takes: Duration, says: &'static str) -> Course {
    Course { takes, status: StatusCode::OK, says }
}

/// Between 20 and 220 ms.
fn mail(drawn: u32) -> Course {
    well(Duration::from_millis(20 + u64::from(drawn % 200)), "sent\n")
}

/// Between 1 and 4 s.
fn report(drawn: u32) -> Course {
    well(Duration::from_millis(1_000 + u64::from(drawn % 3_000)), "written\n")
}

/// One of three fails, one of ten for good.
fn flaky(drawn: u32) -> Course {
    let takes = Duration::from_millis(50 + u64::from(drawn / 30 % 450));
    match drawn % 30 {
        0..=9 => {
            let (status, says) = (StatusCode::INTERNAL_SERVER_ERROR, "the shop is on fire\n");
            Course { takes, status, says }
        }
        10..=12 => {
            let (status, says) = (StatusCode::GONE, "there is no such customer any more\n");
            Course { takes, status, says }
        }
        _ => well(takes, "done\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_course_comes_up_as_often_as_it_is_said_to() {
        let count = |status| (0..30_000).filter(|drawn| flaky(*drawn).status == status).count();
        assert_eq!(count(StatusCode::INTERNAL_SERVER_ERROR), 10_000);
        assert_eq!(count(StatusCode::GONE), 3_000);
        assert!((0..1_000).all(|drawn| mail(drawn).takes < Duration::from_millis(220)));
        assert!((0..10_000).any(|drawn| report(drawn).takes > Duration::from_secs(3)));
    }
}
