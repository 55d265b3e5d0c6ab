//! Decides which of a name's addresses may be connected to. Whoever asks connects to those, and asks nobody again.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::address::{self, Forbidden};

/// Leaves out the addresses that are never called. What it returns is what is connected to: there is no second look-up in
/// between, so that a name which means something else the next moment is checked again when it is looked up again.
#[derive(Clone)]
pub(super) struct CheckedResolver {
    names: Arc<dyn Resolve>,
}

impl CheckedResolver {
    /// Names as the system knows them.
    pub(super) fn of_system() -> Self {
        Self::new(System)
    }

    /// Names as `names` knows them.
    pub(super) fn new(names: impl Resolve + 'static) -> Self {
        Self { names: Arc::new(names) }
    }

    /// The addresses of `host`, a name or an address (without brackets), that may be called.
    pub(super) async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let name = host.parse().map_err(|_| io::Error::other(format!("{host} is no name")))?;
        let found = check(host, self.names.resolve(name).await.map_err(io::Error::other)?)?;
        Ok(found.into_iter().map(|address| SocketAddr::new(address.ip(), port)).collect())
    }
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let found = self.names.resolve(name);
        Box::pin(async move { Ok(Box::new(check(&host, found.await?)?.into_iter()) as Addrs) })
    }
}

impl fmt::Debug for CheckedResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CheckedResolver")
    }
}

/// Those of a name's addresses that may be called; an error when there is none.
fn check(host: &str, found: impl Iterator<Item = SocketAddr>) -> io::Result<Vec<SocketAddr>> {
    let mut allowed = Vec::new();
    let mut reason = None;
    for address in found {
        match address::forbidden(address.ip()) {
            None => allowed.push(address),
            Some(forbidden) => reason = Some(forbidden),
        }
    }
    if allowed.is_empty() {
        let reason = reason.map_or("the name has none", Forbidden::reason);
        return Err(io::Error::other(format!(
            "{host} has no address that may be called: {reason}"
        )));
    }
    Ok(allowed)
}

/// The system's own resolver.
struct System;

impl Resolve for System {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The port is the URL's: whoever connects puts it in place of a zero.
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
