//! `turnwise config`: what a configuration is made of. Decides how a new key to sign with comes about.

use std::process::ExitCode;

use serde::Serialize;

use super::failure::Failure;
use super::show;
use crate::caller::SigningKey;

/// Make what a configuration needs
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    NewSigningKey(NewSigningKey),
}

/// Make a key to sign calls with, and print it: 32 bytes of the system's chance
///
/// The nodes sign with it (`turnwise run --signing-key-file`), the web apps verify with it. It is kept nowhere else.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  (umask 077; turnwise config new-signing-key > /etc/turnwise/signing-key)
  turnwise run --signing-key-file /etc/turnwise/signing-key")]
struct NewSigningKey {
    /// Print {\"signing_key\"}
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Answer {
    signing_key: String,
}

/// Make something for a configuration.
pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let Command::NewSigningKey(NewSigningKey { json }) = args.command;
    let mut random = [0; 32];
    let chance = rustls::crypto::ring::default_provider().secure_random;
    chance.fill(&mut random).map_err(|_| {
        Failure::failed("the system gives no random bytes to make a key of; try again later")
    })?;
    let signing_key = SigningKey::text_of(&random);
    match json {
        true => show::print_json(&Answer { signing_key })?,
        false => show::print(&signing_key)?,
    }
    Ok(ExitCode::SUCCESS)
}
