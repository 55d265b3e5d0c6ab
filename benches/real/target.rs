//! A web app in this process, on a thread of its own: it answers each call with 200 and no body, and tells whoever
//! started it of each. Decides nothing; how long a call takes is said to it.
//!
//! As little of HTTP/1.1 as a node and other people's clients need: kept connections, bodies of a known length. What
//! else is asked of it is answered with 411 or 400, and the connection closed.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};

/// The most that the head of a call may have, in bytes: more than all headers of a job.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Whoever is told of each call as its head has come, by its path and query; and says when it is answered.
pub type Heard = dyn Fn(&str) -> Answer + Send + Sync;

/// When a call is answered.
pub enum Answer {
    /// Now.
    AtOnce,
    /// When this, which nobody adds anything to, is closed.
    WhenClosed(Arc<Semaphore>),
}

/// The web app. Gone with this value.
pub struct WebApp {
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl WebApp {
    /// The name of its thread.
    pub const THREAD: &str = "target";

    /// A new one, on a free port of 127.0.0.1.
    pub fn start(heard: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let serving = serve(TcpListener::from_std(listener).unwrap(), Arc::new(heard));
                tokio::select! {
                    () = serving => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name(Self::THREAD.to_owned()).spawn(serve);
        Self { port, stop: Some(stop), thread: Some(thread.unwrap()) }
    }

    /// Where it is: `http://127.0.0.1:PORT`.
    pub fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for WebApp {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, heard: Arc<Heard>) {
    loop {
        // A connection that was gone before it was taken is no reason to stop.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let heard = Arc::clone(&heard);
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            // Clients come and go as they like.
            let _ = converse(stream, &*heard).await;
        });
    }
}

async fn converse(mut stream: TcpStream, heard: &Heard) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(4 * 1024);
    loop {
        let Some(head) = head(&mut stream, &mut bytes).await? else { return Ok(()) };
        let Some(request) = Request::of(&bytes[..head]) else {
            return stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
                .await;
        };
        let Some(body) = request.body else {
            return stream
                .write_all(b"HTTP/1.1 411 Length Required\r\nconnection: close\r\n\r\n")
                .await;
        };
        let answer = heard(request.path);
        while bytes.len() < head + body {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        }
        bytes.drain(..head + body);
        if let Answer::WhenClosed(gate) = answer {
            // It has no permits to give.
            let _ = gate.acquire().await;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
    }
}

/// Read until a whole head is there; how long it is. None: the client has gone, or says more than is listened to.
async fn head(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<Option<usize>> {
    let mut searched: usize = 0;
    loop {
        if let Some(end) = bytes[searched..].windows(4).position(|four| four == b"\r\n\r\n") {
            return Ok(Some(searched + end + 4));
        }
        searched = bytes.len().saturating_sub(3);
        if bytes.len() > HEAD_BYTES_MAX || stream.read_buf(bytes).await? == 0 {
            return Ok(None);
        }
    }
}

struct Request<'a> {
    path: &'a str,
    /// How many bytes follow; none: it does not say so in advance.
    body: Option<usize>,
}

impl<'a> Request<'a> {
    fn of(head: &'a [u8]) -> Option<Self> {
        let head = std::str::from_utf8(head).ok()?;
        let mut lines = head.split("\r\n");
        let path = lines.next()?.split(' ').nth(1)?;
        let mut body = Some(0);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                body = Some(value.trim().parse().ok()?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                body = None;
            }
        }
        Some(Self { path, body })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::Mutex;

    use super::*;

    fn say(app: &WebApp, words: &[&str]) -> String {
        let mut client = TcpStream::connect(("127.0.0.1", app.port)).unwrap();
        for words in words {
            client.write_all(words.as_bytes()).unwrap();
            client.flush().unwrap();
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn each_call_is_told_once_and_answered_on_a_kept_connection() {
        let paths = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&paths);
        let app = WebApp::start(move |path| {
            told.lock().unwrap().push(path.to_owned());
            Answer::AtOnce
        });
        let words =
            ["POST /a?b HTTP/1.1\r\nContent-Length: 3\r\n\r", "\nxyzGET /c HTT", "P/1.1\r\n\r\n"];
        let answer = say(&app, &words);
        assert_eq!(answer.matches("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").count(), 2);
        assert_eq!(*paths.lock().unwrap(), ["/a?b", "/c"]);
    }

    #[test]
    fn a_call_that_is_held_is_answered_when_it_is_let_go() {
        let gate = Arc::new(Semaphore::new(0));
        let held = Arc::clone(&gate);
        let app = WebApp::start(move |_| Answer::WhenClosed(Arc::clone(&held)));
        std::thread::scope(|scope| {
            let client = scope.spawn(|| say(&app, &["GET / HTTP/1.1\r\n\r\n"]));
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!client.is_finished());
            gate.close();
            assert!(client.join().unwrap().starts_with("HTTP/1.1 200 "));
        });
    }

    #[test]
    fn what_it_does_not_understand_is_answered_with_an_error() {
        let app = WebApp::start(|_| Answer::AtOnce);
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(say(&app, &[chunked]).starts_with("HTTP/1.1 411 "));
        assert!(say(&app, &["nonsense\r\n\r\n"]).starts_with("HTTP/1.1 400 "));
    }
}
