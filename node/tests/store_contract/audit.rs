//! Promises about what is kept of orders.

use turnwise_node::audit::{Action, Actor, Entry};
use turnwise_node::store::{AUDIT_ENQUEUES_MAX, AUDIT_KEPT, Audit, EntryView, Store};
use turnwise_node::token::Role;

use crate::world::{NOON, SECOND, World};

fn entry(action: Action, subject: &str, affected: Option<u64>) -> Entry {
    Entry::new(&Actor::token("shop ü \"q\"", Role::Enqueue), action, subject, affected)
}

pub(crate) async fn what_was_ordered_is_kept_and_shown_page_by_page<W>(w: W)
where
    W: World,
    W::Store: Audit,
{
    let store = w.store();
    let longest = "ö".repeat(400);
    for (action, subject, affected) in [
        (Action::JobEnqueue, "mail it's", Some(3)),
        (Action::QueuePause, "", Some(1)),
        (Action::JobsCancel, longest.as_str(), None),
    ] {
        store.keep(&entry(action, subject, affected)).await.unwrap();
    }
    let all = store.entries(None, 10).await.unwrap();
    let told = |entry: &EntryView| (entry.action.clone(), entry.affected);
    let told: Vec<_> = all.iter().map(told).collect();
    let words = |text: &str| text.to_owned();
    assert_eq!(
        told,
        [
            (words("jobs.cancel"), None),
            (words("queue.pause"), Some(1)),
            (words("job.enqueue"), Some(3))
        ]
    );
    assert!(all[0].id > all[1].id && all[1].id > all[2].id, "{all:?}");
    assert_eq!((all[2].actor.as_str(), all[2].role.as_str()), ("shop ü \"q\"", "enqueue"));
    assert_eq!((all[2].subject.as_str(), all[1].subject.as_str()), ("mail it's", ""));
    assert!(
        all[0].subject.ends_with("ö…") && all[0].subject.len() <= 512,
        "what is too long is cut"
    );
    assert!(all.iter().all(|entry| entry.at.as_micros() == NOON), "{all:?}");
    assert_eq!(store.entries(None, 2).await.unwrap(), all[..2]);
    assert_eq!(store.entries(Some(all[1].id), 2).await.unwrap(), all[2..]);
    assert_eq!(store.entries(Some(all[2].id), 2).await.unwrap(), []);
}

pub(crate) async fn entries_go_when_they_are_too_old_and_enqueues_when_many_came_after<W>(w: W)
where
    W: World,
    W::Store: Audit,
{
    let store = w.store();
    let first = store.keep(&entry(Action::JobEnqueue, "first", Some(1))).await.unwrap();
    store.keep(&entry(Action::QueuePause, "pause", Some(1))).await.unwrap();
    store.keep(&entry(Action::JobEnqueue, "second", Some(1))).await.unwrap();
    let subjects = async || {
        let entries = store.entries(None, 10).await.unwrap();
        entries.into_iter().map(|entry| entry.subject).collect::<Vec<_>>()
    };
    let come = async |id: i64| {
        w.run(&format!(
            "INSERT INTO turnwise.audit (id, at, actor, role, action, subject, affected)
             VALUES ({id}, {}, 'a', 'operate', 'queue.pause', 'late', 1)",
            W::instant(NOON)
        ))
        .await;
    };
    let last = first + i64::from(AUDIT_ENQUEUES_MAX);
    come(last - 1).await;
    assert_eq!(store.prune_audit().await.unwrap(), 0, "it is among the newest");
    come(last).await;
    assert_eq!(store.prune_audit().await.unwrap(), 1);
    assert_eq!(subjects().await, ["late", "late", "second", "pause"]);
    let kept = AUDIT_KEPT.as_micros() as i64;
    w.set_clock(NOON + kept).await;
    assert_eq!(store.prune_audit().await.unwrap(), 0);
    w.set_clock(NOON + kept + SECOND).await;
    store.keep(&entry(Action::QueueResume, "new", Some(1))).await.unwrap();
    assert_eq!(store.prune_audit().await.unwrap(), 4);
    assert_eq!(subjects().await, ["new"]);
}
