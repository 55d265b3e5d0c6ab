//! A server that is too old is refused by name, and nothing is written to it: real servers that say that they are older
//! than they are.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![allow(clippy::disallowed_methods, reason = "real processes take real time, and real threads")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use turnwise_servers::mariadb::MariaDb;
use turnwise_servers::postgres::Cluster;

/// Run a node that should give up at once: its exit code and what it said.
fn run(url: &str) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_turnwise"))
        .args(["run", "--listen", "off", "--fail-fast", "--database-url", url])
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A way to a server on which every `from` in its answers becomes a `to` of the same length: no message of the protocol
/// becomes longer. Open until this process ends.
fn rewritten(server: u16, from: String, to: &'static str) -> u16 {
    assert_eq!(from.len(), to.len());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut node in listener.incoming().flatten() {
            let mut server = TcpStream::connect(("127.0.0.1", server)).unwrap();
            let (mut asks, mut asked) = (node.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut asks, &mut asked));
            let from = from.clone();
            thread::spawn(move || {
                let mut bytes = vec![0; 65_536];
                while let Ok(count @ 1..) = server.read(&mut bytes) {
                    let answer = &mut bytes[..count];
                    let places = 0..count.saturating_sub(from.len() - 1);
                    for place in places {
                        if answer[place..].starts_with(from.as_bytes()) {
                            answer[place..place + from.len()].copy_from_slice(to.as_bytes());
                        }
                    }
                    if node.write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

#[test]
fn an_old_postgres_is_refused_by_name() {
    let server = Cluster::start();
    let version = server.psql("SHOW server_version_num");
    let port = rewritten(server.port(), version, "130099");
    let (code, said) = run(&format!("postgres://postgres@127.0.0.1:{port}/postgres"));
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("PostgreSQL 14"), "{said}");
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'turnwise'";
    assert_eq!(server.psql(schemas), "0", "it was written to");
}

#[test]
fn an_old_mariadb_is_refused_by_name() {
    let server = MariaDb::start_with(&["--version=10.5.29-MariaDB"]);
    server.sql("CREATE DATABASE jobs");
    let (code, said) = run(&server.url_of("jobs"));
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("10.5.29") && said.contains("MariaDB 10.6"), "{said}");
    assert_eq!(server.sql("SHOW TABLES FROM jobs"), "", "it was written to");
}
