//! `peers-target`: what stands around the contestants. Decides which of its four parts is wanted.
//!
//! ```text
//! peers-target serve                        the target; prints its port
//! peers-target ceiling PORT SECONDS         how much a trivial client gets out of it
//! peers-target setup|fill|trickle           Turnwise's client: plain INSERTs, as its documents have them
//! ```

mod ceiling;
mod client;
mod seen;
mod serve;

use std::env;

use peers_common::Failure;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve"] => serve::run().await,
        ["ceiling", port, seconds] => ceiling::run(port.parse()?, seconds.parse()?).await,
        _ => client::run().await,
    }
}
