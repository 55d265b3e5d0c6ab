//! Promises about the rows of nodes: what is asked of a node reaches it, and what it says of its targets is shown.

use turnwise_engine::{Change, TurnKind};
use turnwise_node::store::{DrainAnswer, Store, TARGETS_BYTES_MAX, TargetView};

use crate::member::{Member, id};
use crate::world::{NOON, SECOND, World};

fn state<S: Store>(nodes: &[turnwise_node::store::NodeView], member: &Member<S>) -> String {
    nodes.iter().find(|node| node.id == member.id).unwrap().state.clone()
}

pub(crate) async fn a_node_hears_that_it_is_asked_to_drain<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let mut b = Member::register(&w, 2).await;
    let c = Member::register(&w, 3).await;
    for member in [&mut a, &mut b] {
        let seen = member.read().await;
        assert!(!seen.drain_asked);
        let join = Change::join(&seen.row, member.id, seen.now).unwrap();
        let joined = member.change(join).await;
        assert!(joined.done && !joined.drain_asked);
    }
    assert!(!a.beat().await.drain_asked);

    // Anybody may ask, once; it changes nobody else's row.
    assert_eq!(c.store.drain(a.id).await.unwrap(), Some(DrainAnswer::Asked));
    assert_eq!(c.store.drain(a.id).await.unwrap(), Some(DrainAnswer::AskedBefore));
    assert_eq!(c.store.drain(id(77)).await.unwrap(), None);
    let column = W::micros("drain_asked_at");
    let asked = format!("SELECT {column} FROM turnwise.nodes WHERE drain_asked_at IS NOT NULL");
    assert_eq!(w.number(&asked).await, Some(NOON), "by the server's clock");
    let nodes = a.store.nodes().await.unwrap();
    assert_eq!((state(&nodes, &a), state(&nodes, &b)), ("draining".into(), "live".into()));

    // It hears of it with whatever it asks of the turn row, accepted or not; the others do not.
    w.set_clock(NOON + SECOND).await;
    let accepted = a.beat().await;
    assert!(accepted.done && accepted.drain_asked && !accepted.lost);
    let refused = a.beat().await;
    assert!(!refused.done && refused.drain_asked);
    assert!(a.read().await.drain_asked);
    let seen = b.read().await;
    assert!(!seen.drain_asked && !b.beat().await.drain_asked);
    let leave = Change::leave(&seen.row, a.id, seen.row.slot, seen.now);
    if let Some(leave) = leave {
        assert!(a.change(leave).await.drain_asked);
    }

    // What has left is not asked, and neither is what was declared lost.
    a.store.deregister(a.id).await.unwrap();
    assert_eq!(c.store.drain(a.id).await.unwrap(), Some(DrainAnswer::Gone));
    w.run(&format!("UPDATE turnwise.nodes SET state = 'lost' WHERE id = '{}'", b.id)).await;
    assert_eq!(c.store.drain(b.id).await.unwrap(), Some(DrainAnswer::Gone));
    let lost = b.send(None, TurnKind::Read).await;
    assert!(lost.lost && !lost.drain_asked);

    // A person may ask by plain SQL.
    let now = W::instant(NOON);
    w.run(&format!("UPDATE turnwise.nodes SET drain_asked_at = {now} WHERE id = '{}'", c.id)).await;
    let mut c = c;
    assert!(c.read().await.drain_asked);
}

pub(crate) async fn what_a_node_says_of_its_targets_is_shown<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let b = Member::register(&w, 2).await;
    let shown = async |member: &Member<W::Store>| {
        let nodes = b.store.nodes().await.unwrap();
        nodes.into_iter().find(|node| node.id == member.id).unwrap().targets
    };
    assert_eq!(shown(&a).await, []);
    let target = |number: usize, answers| TargetView {
        origin: format!("http://'{number}\\\"é.example:8080"),
        answers,
        since: "2027-01-15T08:00:00.000000Z".to_owned(),
    };
    let two = [target(1, false), target(2, true)];
    a.store.tell_targets(a.id, &two).await.unwrap();
    assert_eq!((shown(&a).await, shown(&b).await), (two.to_vec(), vec![]));
    a.renew().await;
    assert_eq!(shown(&a).await, two, "a check-in leaves it alone");

    // More than there is room for: those that are away come first.
    let many: Vec<_> = (0..200).map(|number| target(number, number != 199)).collect();
    a.store.tell_targets(a.id, &many).await.unwrap();
    let kept = shown(&a).await;
    assert!(kept.len() > 10 && kept.len() < 200, "{}", kept.len());
    assert_eq!(kept[0], many[199]);
    let bytes = w.number("SELECT max(octet_length(targets)) FROM turnwise.nodes").await;
    assert!(bytes.is_some_and(|bytes| bytes as usize <= TARGETS_BYTES_MAX), "{bytes:?}");

    // Somebody else's words hide no node.
    w.run("UPDATE turnwise.nodes SET targets = '{\"no\": \"list\"}'").await;
    assert_eq!((shown(&a).await, shown(&b).await), (vec![], vec![]));
}
