//! How many requests a second the target can take: a client that does nothing but send the same bytes again on 64
//! connections as soon as the last answer is there.

use std::time::{Duration, Instant};

use peers_common::Failure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CONNECTIONS: usize = 64;
const REQUEST: &[u8] = b"POST /jobs/0 HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\n\r\n";
const END: &[u8] = b"\r\n\r\n";

/// Print the requests a second over so many seconds.
pub(crate) async fn run(port: u16, seconds: u64) -> Result<(), Failure> {
    let start = Instant::now();
    let end = start + Duration::from_secs(seconds);
    let connections: Vec<_> = (0..CONNECTIONS).map(|_| tokio::spawn(hammer(port, end))).collect();
    let mut requests = 0;
    for connection in connections {
        requests += connection.await??;
    }
    println!("{:.0}", requests as f64 / start.elapsed().as_secs_f64());
    Ok(())
}

async fn hammer(port: u16, end: Instant) -> Result<u64, Failure> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await?;
    connection.set_nodelay(true)?;
    let mut buffer = [0; 4096];
    let mut requests = 0;
    while Instant::now() < end {
        connection.write_all(REQUEST).await?;
        let mut length = 0;
        while !buffer[..length].ends_with(END) {
            let read = connection.read(&mut buffer[length..]).await?;
            if read == 0 {
                return Err("the target closed the connection".into());
            }
            length += read;
        }
        requests += 1;
    }
    Ok(requests)
}
