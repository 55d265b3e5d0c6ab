//! `turnwise token`: makes tokens for those who call the API, lists and revokes them. What a token opens is the door's to decide.

use std::process::ExitCode;

use clap::Subcommand;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;

use super::common::Common;
use super::failure::Failure;
use super::show;
use crate::audit::{Action, Order};
use crate::rfc3339;
use crate::store::{TokenMade, TokenView, Tokens};
use crate::token::{self, Role, TOKENS_MAX, TokenHash};

/// Make, list and revoke the tokens of those who call the API
///
/// A node that listens with --listen-token takes these too, each as far as its role goes. A node hears of a new one, and of one
/// that was revoked, within five seconds.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  turnwise token create shop --role enqueue
  turnwise token list
  turnwise token revoke shop")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(CreateArgs),
    List(ListArgs),
    Revoke(RevokeArgs),
}

/// Make a token and print it
///
/// It is shown this once: the database has its hash alone. Exits with 1 when there is another of that name, or 100 in all.
#[derive(Debug, clap::Args)]
struct CreateArgs {
    #[command(flatten)]
    common: Common,

    /// Its name, for people, up to 100 bytes
    #[arg(value_name = "NAME", value_parser = token::parse_name)]
    name: String,

    /// What it opens: `read` sees everything but the audit, `enqueue` enqueues jobs and makes batches too,
    /// `operate` does whatever can be done
    #[arg(long, value_name = "ROLE", value_parser = role_parser())]
    role: Role,

    /// Print {"name", "role", "token"}
    #[arg(long)]
    json: bool,
}

/// List the tokens, by name, without what opens
#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    common: Common,

    /// Print a JSON array of {"name", "role", "created_at"}
    #[arg(long)]
    json: bool,
}

/// Revoke a token
///
/// Nodes let it in for up to five seconds more. Exits with 1 when there is none of that name.
#[derive(Debug, clap::Args)]
struct RevokeArgs {
    #[command(flatten)]
    common: Common,

    /// Its name
    #[arg(value_name = "NAME")]
    name: String,
}

/// A token that was made.
#[derive(Serialize)]
struct Made<'a> {
    name: &'a str,
    role: Role,
    token: &'a str,
}

/// A token in a list.
#[derive(Serialize)]
struct Line {
    name: String,
    role: Role,
    created_at: String,
}

/// Do what was asked of the tokens.
pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    match args.command {
        Command::Create(args) => create(args).await?,
        Command::List(args) => list(args).await?,
        Command::Revoke(args) => revoke(args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(args: CreateArgs) -> Result<(), Failure> {
    let CreateArgs { common, name, role, json } = args;
    let store = common.store().await?;
    let token = token::generate()
        .map_err(|error| Failure::failed(format!("the system gives no chance: {error}")))?;
    let shown = show::printable(&name);
    let order = Order::by_command(Action::TokenMake, format_args!("{name} ({})", role.as_str()));
    let made = order.carry_out(&store, store.make_token(&name, role, TokenHash::of(&token)));
    match made.await? {
        TokenMade::Made if json => show::print_json(&Made { name: &name, role, token: &token }),
        TokenMade::Made => show::print(&token),
        TokenMade::NameTaken => Err(Failure::failed(format!(
            "there is a token {shown} already; revoke it first, or choose another name"
        ))),
        TokenMade::TooMany => Err(Failure::failed(format!(
            "there are {TOKENS_MAX} tokens, the most that may be; `turnwise token revoke` makes room"
        ))),
    }
}

async fn list(args: ListArgs) -> Result<(), Failure> {
    let tokens = args.common.store().await?.tokens().await?;
    if args.json {
        let line = |token: &TokenView| Line {
            name: token.name.clone(),
            role: token.role,
            created_at: rfc3339::format(token.created_at),
        };
        return show::print_json(&tokens.iter().map(line).collect::<Vec<_>>());
    }
    if tokens.is_empty() {
        return show::print("no tokens");
    }
    let row = |token: &TokenView| {
        let created = rfc3339::format(token.created_at);
        [show::printable(&token.name), token.role.as_str().to_owned(), created]
    };
    show::print(&show::table(["NAME", "ROLE", "CREATED"], tokens.iter().map(row).collect()))
}

async fn revoke(args: RevokeArgs) -> Result<(), Failure> {
    let name = show::printable(&args.name);
    let store = args.common.store().await?;
    let order = Order::by_command(Action::TokenRevoke, &args.name);
    match order.carry_out(&store, store.revoke_token(&args.name)).await? {
        true => show::print(&format!("{name} is revoked")),
        false => Err(Failure::failed(format!(
            "there is no token {name}; `turnwise token list` shows those that there are"
        ))),
    }
}

fn role_parser() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(Role::ALL.map(Role::as_str)).try_map(|word| word.parse::<Role>())
}
