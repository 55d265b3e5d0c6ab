//! Decides which servers a list of URLs names: all of one kind, and each a URL of its own.

use url::Url;

use super::StoreError;
use super::errors::without_password;

/// A kind of database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Sqlite,
    Postgres,
    MySql,
}

impl Kind {
    fn of(url: &str) -> Result<Self, StoreError> {
        match url.split(':').next().unwrap_or_default() {
            "sqlite" => Ok(Self::Sqlite),
            "postgres" | "postgresql" => Ok(Self::Postgres),
            "mysql" | "mariadb" => Ok(Self::MySql),
            _ => Err(bad(
                url,
                "a URL begins with sqlite://, postgres://, postgresql://, mysql:// or mariadb://"
                    .to_owned(),
            )),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
            Self::MySql => "MariaDB or MySQL",
        }
    }
}

/// The servers that URLs name. Fails when they are of several kinds, or when there is none.
pub(super) fn servers<U: AsRef<str>>(urls: &[U]) -> Result<(Kind, Vec<String>), StoreError> {
    let Some(first) = urls.first().map(AsRef::as_ref) else {
        return Err(bad("", "no URL is given".to_owned()));
    };
    let kind = Kind::of(first)?;
    let mut servers = Vec::new();
    for url in urls.iter().map(AsRef::as_ref) {
        let other = Kind::of(url)?;
        if other != kind {
            return Err(bad(
                url,
                format!(
                    "it is {} and {} is {}: several URLs name the servers of one database, a primary and its standbys; leave one kind out",
                    other.name(),
                    without_password(first),
                    kind.name()
                ),
            ));
        }
        servers.extend(each_host(url));
    }
    if kind == Kind::Sqlite && servers.len() > 1 {
        let reason = "a SQLite database is one file and has no standby; give one URL".to_owned();
        return Err(bad(&servers[1], reason));
    }
    one_database(kind, &servers)?;
    Ok((kind, servers))
}

/// Copies of a database bear one name.
fn one_database(kind: Kind, servers: &[String]) -> Result<(), StoreError> {
    let name = |url: &str| match Url::parse(url) {
        // A name in the query is told apart by the servers.
        Ok(url) if kind != Kind::Sqlite && url.query_pairs().all(|(key, _)| key != "dbname") => {
            Some(url.path().trim_matches('/').to_owned())
        }
        _ => None,
    };
    let mut named = servers.iter().filter_map(|url| Some((url, name(url)?)));
    let Some((first, database)) = named.next() else { return Ok(()) };
    match named.find(|(_, other)| *other != database) {
        None => Ok(()),
        Some((url, other)) => Err(bad(
            url,
            format!(
                "it names the database {other:?} and {} names {database:?}: several URLs name the servers of one database, a primary and its standbys",
                without_password(first)
            ),
        )),
    }
}

/// A URL with several hosts, as libpq takes them (PostgreSQL documentation, section 34.1.1.2), is one for each. What is
/// no such URL is told by the driver.
fn each_host(url: &str) -> Vec<String> {
    let alone = || vec![url.to_owned()];
    let Some((scheme, rest)) = url.split_once("://") else { return alone() };
    if !scheme.starts_with("postgres") {
        return alone();
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), authority),
    };
    hosts.split(',').map(|host| format!("{scheme}://{user}{host}{path}")).collect()
}

fn bad(url: &str, reason: String) -> StoreError {
    StoreError::BadUrl { url: without_password(url), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_hosts_in_one_url_are_several_servers() {
        let url = "postgres://u:p%2Cw@h1:5432,h2,[::1]:5434/d?target_session_attrs=read-write";
        let rest = "/d?target_session_attrs=read-write";
        let wanted =
            ["h1:5432", "h2", "[::1]:5434"].map(|host| format!("postgres://u:p%2Cw@{host}{rest}"));
        assert_eq!(servers(&[url]).unwrap(), (Kind::Postgres, wanted.to_vec()));
        for alone in
            ["postgres:///d?host=/a,/b", "mysql://h/d,e", "sqlite://a,b.db", "postgres://h"]
        {
            assert_eq!(servers(&[alone]).unwrap().1, [alone]);
        }
    }

    #[test]
    fn urls_that_are_no_copies_of_one_database_are_refused_without_their_passwords() {
        let cases: &[(&[&str], &str)] = &[
            (&["postgres://u:geheim@a/d", "mysql://u:geheim@b/d"], "MariaDB or MySQL and postgres"),
            (&["sqlite://a.db", "sqlite://b.db"], "one file"),
            (&["postgres://u:geheim@a/d", "postgres://u:geheim@b/e"], "\"e\""),
            (&["postgres://a/d", "mssql://u:geheim@b/d"], "begins with"),
            (&[], "no URL"),
        ];
        for (urls, word) in cases {
            let error = servers(urls).unwrap_err().to_string();
            assert!(error.contains(word) && !error.contains("geheim"), "{error}");
        }
        assert!(servers(&["postgres://a/d", "postgresql://u@b:1/d?sslmode=require"]).is_ok());
    }
}
