//! Decides which of the servers that answered is the one to use, and says of the others why they are not.

use super::{History, Who};
use crate::store::StoreError;

/// What to do about a database that nobody can write to.
const NO_PRIMARY: &str = "Nodes wait for a server that takes writes: promote a standby or start the primary; and give a node the URL of every server (--database-url, repeated), so that it finds the one";

/// Why two servers cannot be told apart.
const SIDE_BY_SIDE: &str =
    "they take writes side by side, and nothing shows which is the newer one";

/// Which server to use.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) place: usize,
    /// Old primaries that take writes as well, and why they are left alone.
    pub(super) outdated: Vec<String>,
}

/// Which of the servers that answered to use: the one that takes writes; of several, the one with the newest history.
/// `newest` is the newest that was ever seen: a server that is behind it was replaced.
pub(super) fn decide<'a>(
    answers: &[(usize, Result<Who, StoreError>)],
    chosen: Option<&(usize, Who)>,
    newest: Option<History>,
    name: impl Fn(usize) -> &'a str,
) -> Result<Decision, StoreError> {
    let mut able: Vec<(usize, &Who)> = Vec::new();
    let mut unfit: Vec<(usize, String)> = Vec::new();
    for (place, answer) in answers {
        match answer {
            Err(_) => {}
            Ok(Who { read_only: Some(reason), .. }) => unfit.push((*place, reason.clone())),
            Ok(who) => able.push((*place, who)),
        }
    }
    one_cluster(&able, &name)?;
    let old = set_old_ones_aside(&mut able, newest);
    let in_use = |(place, who): &&(usize, &Who)| {
        chosen.is_some_and(|(chosen, then)| chosen == place && then == *who)
    };
    let place = match (able.iter().find(in_use), able.first()) {
        (Some((place, _)), _) => *place,
        // One server by two names is one server.
        (None, Some((place, who))) if able.iter().all(|able| able.1.identity == who.identity) => {
            *place
        }
        (None, Some(_)) => return Err(two(&able, SIDE_BY_SIDE, &name)),
        (None, None) => {
            unfit.extend(old);
            return Err(nobody(answers, unfit, name));
        }
    };
    let outdated = old.into_iter().map(|(place, reason)| format!("{} {reason}", name(place)));
    Ok(Decision { place, outdated: outdated.collect() })
}

/// Whether a server may be the one to use, as far as it and the newest history that was ever seen can tell.
pub(super) fn would_do(who: &Who, newest: Option<History>) -> bool {
    let is_behind = match (who.history, newest) {
        (Some(its), Some(newest)) => {
            its.cluster == newest.cluster && its.timeline < newest.timeline
        }
        _ => false,
    };
    who.read_only.is_none() && !is_behind
}

/// Leave those whose history is the newest that is known. The others, and why not they.
fn set_old_ones_aside(
    able: &mut Vec<(usize, &Who)>,
    newest: Option<History>,
) -> Vec<(usize, String)> {
    let cluster = able.iter().find_map(|(_, who)| Some(who.history?.cluster));
    let seen = newest.filter(|newest| Some(newest.cluster) == cluster);
    let timelines = able.iter().filter_map(|(_, who)| who.history).chain(seen);
    let Some(best) = timelines.map(|history| history.timeline).max() else { return Vec::new() };
    let mut old = Vec::new();
    able.retain(|(place, who)| match who.history {
        Some(History { timeline, .. }) if timeline < best => {
            old.push((*place, outdated(timeline, best)));
            false
        }
        _ => true,
    });
    old
}

/// Why a server that takes writes is left alone.
fn outdated(its: i64, best: i64) -> String {
    format!(
        "takes writes on timeline {its}, and another has taken over on timeline {best}: it is an old primary that must be stopped and made a standby (pg_rewind)"
    )
}

/// Servers of two clusters are two databases.
fn one_cluster<'a>(
    able: &[(usize, &Who)],
    name: impl Fn(usize) -> &'a str,
) -> Result<(), StoreError> {
    let mut clusters = able.iter().filter_map(|(_, who)| Some(who.history?.cluster));
    let Some(first) = clusters.next() else { return Ok(()) };
    match clusters.all(|cluster| cluster == first) {
        true => Ok(()),
        false => Err(two(able, "they are two databases, not copies of one", name)),
    }
}

fn two<'a>(able: &[(usize, &Who)], reason: &str, name: impl Fn(usize) -> &'a str) -> StoreError {
    let names: Vec<_> = able.iter().map(|(place, _)| name(*place)).collect();
    StoreError::Refused {
        database: names.join(" and "),
        reason: reason.to_owned(),
        remedy: "Name a primary and its standbys, and see that only one of them takes writes (read_only on the others)".to_owned(),
    }
}

/// No server will do. What only a person can mend is said as it is when waiting for another server is no use.
fn nobody<'a>(
    answers: &[(usize, Result<Who, StoreError>)],
    unfit: Vec<(usize, String)>,
    name: impl Fn(usize) -> &'a str,
) -> StoreError {
    let errors = || answers.iter().filter_map(|(_, answer)| answer.as_ref().err());
    let waits = !unfit.is_empty() || errors().any(StoreError::is_transient);
    if let Some(error) = errors().next()
        && (answers.len() == 1 || !waits)
    {
        return error.clone();
    }
    let unfit =
        unfit.into_iter().map(|(place, reason)| (place, format!("{} {reason}", name(place))));
    let away = answers.iter().filter_map(|(place, answer)| match answer.as_ref().err()? {
        StoreError::Unreachable { reason, .. } => {
            Some((*place, format!("{}: {reason}", name(*place))))
        }
        error => Some((*place, error.to_string())),
    });
    let mut reasons: Vec<_> = unfit.chain(away).collect();
    reasons.sort();
    let reasons: Vec<_> = reasons.into_iter().map(|(_, reason)| reason).collect();
    StoreError::NotWritable { reason: reasons.join("; "), remedy: NO_PRIMARY }
}

#[cfg(test)]
mod tests {
    use turnwise_engine::{Fate, ServerIdentity};

    use super::*;

    const CLUSTER: i64 = 7;

    fn primary(timeline: i64, started: i64) -> Who {
        Who {
            identity: ServerIdentity { started, timeline },
            history: Some(History { cluster: CLUSTER, timeline }),
            read_only: None,
        }
    }

    fn replica(started: i64) -> Who {
        Who {
            read_only: Some("is a read-only replica".to_owned()),
            history: None,
            ..primary(0, started)
        }
    }

    fn away() -> StoreError {
        StoreError::Unreachable {
            database: "x".to_owned(),
            reason: "connection refused".to_owned(),
            fate: Fate::NotSent,
        }
    }

    fn wrong_password() -> StoreError {
        StoreError::Refused {
            database: "x".to_owned(),
            reason: "password".to_owned(),
            remedy: "Check it".to_owned(),
        }
    }

    fn choose(
        answers: Vec<Result<Who, StoreError>>,
        chosen: Option<&(usize, Who)>,
        newest: Option<i64>,
    ) -> Result<usize, StoreError> {
        let answers: Vec<_> = answers.into_iter().enumerate().collect();
        let newest = newest.map(|timeline| History { cluster: CLUSTER, timeline });
        let name = |place| ["a", "b", "c"][place];
        decide(&answers, chosen, newest, name).map(|decision| decision.place)
    }

    #[test]
    fn the_server_that_takes_writes_is_chosen() {
        assert_eq!(choose(vec![Ok(replica(1)), Ok(primary(1, 2))], None, None).ok(), Some(1));
        assert_eq!(choose(vec![Err(away()), Ok(primary(1, 2))], None, None).ok(), Some(1));
        assert_eq!(
            choose(vec![Err(wrong_password()), Ok(primary(1, 2))], None, None).ok(),
            Some(1)
        );
        // One server by two names.
        assert_eq!(choose(vec![Ok(primary(1, 2)), Ok(primary(1, 2))], None, None).ok(), Some(0));
        let chosen = (1, primary(1, 2));
        assert_eq!(
            choose(vec![Ok(primary(1, 2)), Ok(primary(1, 2))], Some(&chosen), None).ok(),
            Some(1)
        );
    }

    #[test]
    fn of_two_that_take_writes_the_newer_history_counts() {
        for chosen in [None, Some((0, primary(1, 1))), Some((1, primary(2, 2)))] {
            let both = vec![Ok(primary(1, 1)), Ok(primary(2, 2))];
            assert_eq!(choose(both, chosen.as_ref(), None).ok(), Some(1));
        }
        let both: Vec<_> = [primary(1, 1), primary(2, 2)].map(Ok).into_iter().enumerate().collect();
        let decision = decide(&both, None, None, |place| ["a", "b"][place]).unwrap();
        assert!(decision.outdated[0].starts_with("a takes writes on timeline 1"));
        // Alone, the old one is known by what was seen before.
        let error = choose(vec![Ok(primary(1, 1)), Err(away())], None, Some(2)).unwrap_err();
        assert!(error.is_transient());
        let said = error.to_string();
        assert!(
            said.contains("a takes writes on timeline 1") && said.contains("timeline 2"),
            "{said}"
        );
        assert!(said.contains("b: connection refused") && said.contains("old primary"), "{said}");
        // Another cluster has timelines of its own.
        let mut restored = primary(1, 3);
        restored.history = Some(History { cluster: 8, timeline: 1 });
        assert_eq!(choose(vec![Ok(restored)], None, Some(2)).ok(), Some(0));
    }

    #[test]
    fn two_that_nothing_tells_apart_are_refused_unless_one_is_in_use() {
        let both = || vec![Ok(primary(1, 1)), Ok(primary(1, 2))];
        let error = choose(both(), None, None).unwrap_err();
        assert!(!error.is_transient() && error.to_string().contains("a and b"), "{error}");
        assert_eq!(choose(both(), Some(&(1, primary(1, 2))), None).ok(), Some(1));
        let mut other = primary(1, 2);
        other.history = Some(History { cluster: 8, timeline: 1 });
        let error = choose(vec![Ok(primary(1, 1)), Ok(other)], None, None).unwrap_err();
        assert!(error.to_string().contains("two databases"), "{error}");
    }

    #[test]
    fn without_a_primary_every_server_is_named_with_its_reason() {
        let error = choose(vec![Ok(replica(1))], None, None).unwrap_err();
        let said = error.to_string();
        assert!(error.is_transient() && error.fate() == Fate::NotSent);
        assert!(
            said.contains("a is a read-only replica") && said.contains("--database-url"),
            "{said}"
        );
        let error = choose(vec![Err(away()), Ok(replica(1))], None, None).unwrap_err();
        let said = error.to_string();
        assert!(said.contains("a: connection refused; b is a read-only replica"), "{said}");
        assert!(matches!(
            choose(vec![Err(away())], None, None),
            Err(StoreError::Unreachable { .. })
        ));
        // Nobody but a person can mend it: no waiting.
        let error = choose(vec![Err(wrong_password()), Err(wrong_password())], None, None);
        assert!(matches!(error, Err(StoreError::Refused { .. })));
        let error = choose(vec![Err(wrong_password()), Err(away())], None, None).unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("Check it"), "{error}");
    }
}
