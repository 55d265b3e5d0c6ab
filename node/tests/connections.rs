//! Those who connect to a node's API and say nothing, or slowly, or are too many: they take nothing from the others.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use futures_util::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use turnwise_node::serve::{Limits, serve_within};

/// Long enough for any machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// A stream goes on for so many pieces.
const PIECES: u32 = 8;

async fn served(limits: Limits) -> SocketAddr {
    let routes = Router::new()
        .route("/", get(|| async { "here" }))
        .route("/said", post(|body: String| async move { format!("you said {body}") }))
        .route("/stream", get(async || Body::from_stream(stream::unfold(0, piece))));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve_within(listener, routes, limits));
    address
}

async fn piece(number: u32) -> Option<(Result<String, std::io::Error>, u32)> {
    sleep(Duration::from_millis(100)).await;
    (number < PIECES).then(|| (Ok(format!("piece {number};")), number + 1))
}

/// Say this; all that comes back until the connection is closed.
async fn told(stream: &mut TcpStream, say: &str) -> String {
    // One that is cut off meanwhile hears it when it reads.
    let _ = stream.write_all(say.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it is not closed");
    String::from_utf8(answer).unwrap()
}

fn ask(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn three_hundred_who_say_nothing_leave_the_page_answering() {
    // They are not waited for: only that there is no room for all of them makes them go.
    let limits = Limits { head: PATIENCE, ..Limits::DEFAULT };
    let address = served(limits).await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let mut one = TcpStream::connect(address).await.unwrap();
    assert!(told(&mut one, &ask("/")).await.ends_with("here"));
    // The oldest went, and as many as had to.
    let gone = silent.len() + 1 - limits.connections;
    for stream in &mut silent[..gone] {
        let closed = timeout(PATIENCE, stream.read(&mut [0])).await.expect("it is still connected");
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    }
    let last = silent.last_mut().unwrap();
    assert!(told(last, &ask("/")).await.ends_with("here"), "the newest is still connected");
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_cut() {
    let address = served(Limits { head: Duration::from_millis(300), ..Limits::DEFAULT }).await;
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut from, mut to) = stream.into_split();
    let dripping = tokio::spawn(async move {
        for byte in "GET / HTTP/1.1\r\nx: ".bytes().chain(std::iter::repeat(b'x')) {
            if to.write_all(&[byte]).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(30)).await;
        }
    });
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, from.read_to_end(&mut answer)).await.expect("it is not cut");
    assert!(!String::from_utf8(answer).unwrap().contains("200"), "nothing was asked for yet");
    timeout(PATIENCE, dripping).await.expect("it goes on").unwrap();
}

#[tokio::test]
async fn a_body_that_does_not_come_or_is_too_large_is_told_so() {
    let limits = Limits { body: Duration::from_millis(300), ..Limits::DEFAULT };
    let address = served(limits).await;
    let post = |bytes: usize, body: &str| {
        format!("POST /said HTTP/1.1\r\nhost: x\r\ncontent-length: {bytes}\r\n\r\n{body}")
    };
    let mut slow = TcpStream::connect(address).await.unwrap();
    let answer = told(&mut slow, &post(5, "abc")).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("300ms"), "{answer}");
    let mut large = TcpStream::connect(address).await.unwrap();
    let answer = told(&mut large, &post(limits.body_bytes + 1, "")).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("16384"), "{answer}");
    let mut right = TcpStream::connect(address).await.unwrap();
    let say = post(3, "abc").replace("host", "connection: close\r\nhost");
    assert!(told(&mut right, &say).await.ends_with("you said abc"));
}

#[tokio::test]
async fn where_all_ask_for_something_the_newcomer_is_told_and_has_room_when_one_goes() {
    let address = served(Limits { connections: 2, ..Limits::DEFAULT }).await;
    let mut busy = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // That a piece has come proves that the request was heard.
        stream.write_all(ask("/stream").as_bytes()).await.unwrap();
        timeout(PATIENCE, stream.read(&mut [0; 512])).await.unwrap().unwrap();
        busy.push(stream);
    }
    let mut third = TcpStream::connect(address).await.unwrap();
    let answer = told(&mut third, "").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("2 connections"), "{answer}");
    busy.pop();
    let until_there_is_room = async {
        loop {
            let mut again = TcpStream::connect(address).await.unwrap();
            if told(&mut again, &ask("/")).await.ends_with("here") {
                return;
            }
        }
    };
    timeout(PATIENCE, until_there_is_room).await.expect("there is no room");
}

#[tokio::test]
async fn an_answer_that_takes_long_is_not_cut() {
    let limit = Duration::from_millis(200);
    let address = served(Limits { head: limit, body: limit, ..Limits::DEFAULT }).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let answer = told(&mut stream, &ask("/stream")).await;
    assert!(answer.contains(&format!("piece {};", PIECES - 1)), "{answer}");
    // But one who has had an answer and asks for nothing more is.
    let mut idle = TcpStream::connect(address).await.unwrap();
    let answer = told(&mut idle, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.ends_with("here"), "{answer}");
}
