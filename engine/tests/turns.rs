//! What the engine promises of turns, each shown on a small farm: who polls when, and what it costs when something
//! happens. All else that may
//! happen is the simulator's.

#![allow(clippy::unwrap_used)]

mod farm;

use farm::{Farm, SECOND};
use turnwise_engine::{Change, Input, Note, Period, ServerIdentity, Slot, WorkStatement};

/// Each accepted beat's node, in order.
fn order(farm: &Farm) -> Vec<usize> {
    farm.beats.iter().filter(|beat| beat.accepted).map(|beat| beat.node).collect()
}

/// From now on everything is as it should be: each slot polled once, on its boundary, in turn.
fn assert_calm(farm: &mut Farm) {
    let ring = farm.ring();
    farm.forget();
    farm.run((ring.len() as f64 * 4.0 + 4.0) * farm.row.cadence.period.as_duration().as_secs_f64());
    assert_eq!((farm.missed(), farm.refused(), farm.abandoned), (0, 0, 0));
    assert_eq!(farm.sent.len(), farm.beats.len(), "an idle farm sends beats and nothing else");
    let order = order(farm);
    assert!(order.len() > 3 * ring.len(), "{order:?}");
    for round in order.windows(ring.len()) {
        let mut round = round.to_vec();
        round.sort_unstable();
        assert_eq!(round, ring);
    }
    for beat in &farm.beats {
        assert!(beat.error.abs() < 1_000_000, "{beat:?}");
    }
    let errors: Vec<_> = farm.notes.iter().map(|(_, note)| note).collect();
    assert!(errors.iter().all(|note| matches!(note, Note::Beat { .. })), "{errors:?}");
}

#[test]
fn each_slot_is_polled_once_in_strict_alternation() {
    for nodes in 1..=6 {
        for period in [Period::DEFAULT, Period::from_millis(250).unwrap()] {
            let mut farm = Farm::settled_with(nodes, period);
            assert_eq!(farm.ring().len(), nodes);
            assert_calm(&mut farm);
        }
    }
}

#[test]
fn on_a_road_as_long_as_the_period_nothing_is_given_up() {
    let mut farm = Farm::empty(Period::DEFAULT);
    for _ in 0..3 {
        let node = farm.start();
        farm.nodes[node].way = 440_000_000;
    }
    farm.run(40.0);
    farm.forget();
    farm.run(40.0);
    assert_eq!((farm.missed(), farm.refused(), farm.abandoned), (0, 0, 0));
}

#[test]
fn joining_costs_nothing() {
    for nodes in 1..=4 {
        for tenth in 0..10 {
            let mut farm = Farm::settled(nodes);
            farm.run(0.1 * f64::from(tenth));
            let node = farm.start();
            farm.run(20.0);
            assert_eq!((farm.missed(), farm.refused()), (0, 0), "{nodes}, {tenth}");
            assert!(farm.ring().contains(&node));
            assert_calm(&mut farm);
        }
    }
}

#[test]
fn leaving_costs_nothing_and_is_told() {
    for nodes in 1..=4 {
        for tenth in 0..10 {
            let mut farm = Farm::settled(nodes);
            farm.run(0.1 * f64::from(tenth) + 0.03);
            farm.tell(0, Input::Leave);
            farm.run(20.0);
            let left: Vec<_> = farm.notes.iter().filter(|(_, note)| *note == Note::Left).collect();
            assert_eq!(left, [&(0, Note::Left)], "{nodes}, {tenth}");
            assert!(farm.nodes[0].engine.poll_timeout().is_none(), "it has nothing more to do");
            assert!(!farm.ring().contains(&0));
            if nodes > 1 {
                assert_eq!((farm.missed(), farm.refused()), (0, 0), "{nodes}, {tenth}");
                assert_calm(&mut farm);
            }
        }
    }
}

#[test]
fn a_crash_costs_one_slot_and_the_others_close_the_gap() {
    for nodes in 2..=5 {
        for tenth in 0..10 {
            let mut farm = Farm::settled(nodes);
            farm.run(0.1 * f64::from(tenth));
            farm.nodes[1].dead = true;
            farm.run(4.0 * nodes as f64 + 8.0);
            assert!(farm.missed() <= 1, "{nodes}, {tenth}: {}", farm.missed());
            assert_eq!(farm.refused(), 0);
            assert!(!farm.ring().contains(&1));
            assert_calm(&mut farm);
        }
    }
}

#[test]
fn two_crashes_at_once_cost_two_slots_a_round_until_both_are_found() {
    let mut farm = Farm::settled(5);
    (farm.nodes[1].dead, farm.nodes[3].dead) = (true, true);
    farm.run(40.0);
    assert!(farm.missed() <= 2, "{}", farm.missed());
    assert_eq!(farm.ring(), [0, 2, 4]);
    assert_calm(&mut farm);
}

#[test]
fn who_returns_to_a_ring_of_the_dead_polls_by_the_fourth_slot() {
    for nodes in 1..=4 {
        for pause in [0.5, 10.0, 3_600.0] {
            let mut farm = Farm::settled(nodes);
            for node in &mut farm.nodes {
                node.dead = true;
            }
            farm.run(pause + nodes as f64 + 2.0);
            let returned = farm.start();
            farm.forget();
            let started = farm.row.cadence.slot_at(farm.clock());
            farm.run(20.0);
            let first = farm.beats.first().unwrap().slot;
            assert!(first - started <= 5, "{nodes}, {pause}: {}", first - started);
            assert_eq!(farm.ring(), [returned]);
            assert_calm(&mut farm);
        }
    }
}

#[test]
fn nobody_takes_a_ring_over_whose_nodes_may_still_act() {
    let mut farm = Farm::settled(3);
    for node in &mut farm.nodes {
        node.dead = true;
    }
    farm.start();
    let before = farm.ring();
    farm.run(0.9);
    let members: Vec<_> = before.iter().filter(|node| farm.ring().contains(node)).collect();
    assert_eq!(members.len(), before.len());
}

#[test]
fn an_outage_kills_nobody_and_is_asked_about_once_a_slot() {
    for seconds in [4.3, 30.0] {
        let mut farm = Farm::settled(3);
        farm.down = true;
        farm.run(seconds);
        for node in 0..3 {
            let sent: Vec<_> = farm.sent.iter().filter(|sent| sent.node == node).collect();
            assert!(sent.len() as f64 <= seconds + 2.0, "{seconds}: {}", sent.len());
            assert!(sent.len() as f64 >= seconds / 3.0 - 2.0, "{seconds}: {}", sent.len());
            for read in sent.iter().filter(|sent| sent.is_read) {
                assert!(
                    read.after.abs() > 60_000_000,
                    "on the boundary, where beats are: {read:?}"
                );
            }
        }
        farm.down = false;
        farm.forget();
        farm.run(20.0);
        assert!(farm.missed() <= 2, "{seconds}: {}", farm.missed());
        let changed = farm.notes.iter().any(|(_, note)| matches!(note, Note::Changed { .. }));
        assert!(!changed, "{seconds}: somebody was removed");
        assert_calm(&mut farm);
    }
}

#[test]
fn a_clock_that_is_set_stops_nothing() {
    for (step, missed) in [(-3_600, 0), (3_600, 0), (-1, 2), (-2, 2), (1, 1), (2, 2), (-40, 0)] {
        for nodes in [1, 3] {
            let mut farm = Farm::settled(nodes);
            farm.run(0.4);
            farm.server += step * SECOND as i64;
            farm.run(30.0);
            let slots: Vec<_> = farm.beats.iter().filter(|b| b.accepted).map(|b| b.slot).collect();
            assert!(slots.is_sorted_by(|a, b| a < b), "{step}: {slots:?}");
            let skipped = farm.missed() - step.max(0);
            assert!(skipped <= missed, "{step}, {nodes}: {skipped} missed");
            assert!(farm.refused() <= 3, "{step}, {nodes}: {} refused", farm.refused());
            assert_eq!(farm.ring().len(), nodes, "{step}: somebody was removed");
            assert_calm(&mut farm);
        }
    }
}

#[test]
fn a_node_that_slept_reads_first_and_comes_back() {
    for seconds in [2.0, 9.0, 100.0] {
        let mut farm = Farm::settled(3);
        farm.run_to_turn_of(1, 300_000_000);
        farm.sleep(1, seconds);
        farm.sent.clear();
        farm.run(seconds + 20.0);
        let first = farm.sent.iter().find(|sent| sent.node == 1).unwrap();
        assert!(first.is_read, "{seconds}: {first:?}");
        assert_eq!(farm.refused(), 0);
        let skipped =
            |(node, note): &(usize, Note)| *node == 1 && matches!(note, Note::TurnSkipped { .. });
        assert!(farm.notes.iter().any(skipped), "{seconds}: {:?}", farm.notes);
        assert_eq!(farm.ring(), [0, 1, 2], "{seconds}");
        assert_calm(&mut farm);
    }
}

#[test]
fn a_beat_whose_connection_breaks_is_sent_again_once() {
    let mut farm = Farm::settled(3);
    let slot = farm.run_to_turn_of(1, 100_000_000);
    farm.nodes[1].broken = 1;
    farm.run(20.0);
    assert_eq!((farm.missed(), farm.refused()), (0, 0));
    assert!(farm.beats.iter().any(|beat| beat.node == 1 && beat.slot == slot && beat.accepted));
    assert_calm(&mut farm);
    let slot = farm.run_to_turn_of(1, 100_000_000);
    farm.nodes[1].broken = 2;
    farm.forget();
    farm.run(5.0);
    assert!(farm.beats.iter().all(|beat| beat.slot != slot), "twice is not weather");
    let next = farm.sent.iter().find(|sent| sent.node == 1).unwrap();
    assert!(next.is_read && next.slot > slot, "{next:?}");
    farm.run(20.0);
    assert_calm(&mut farm);
}

/// A settled ring of so many, each as far from the server.
fn far_away(nodes: usize, period: Period, way: u64) -> Farm {
    let mut farm = Farm::empty(period);
    for _ in 0..nodes {
        let node = farm.start();
        farm.nodes[node].way = way;
        farm.run(0.13);
    }
    farm.run(40.0);
    farm
}

#[test]
fn a_lost_answer_costs_nothing_on_a_long_road_either() {
    for (nodes, millis) in [(1, 1_000), (2, 1_000), (3, 1_000), (4, 1_000), (2, 66)] {
        let period = Period::from_millis(millis).unwrap();
        let slot = period.as_duration().as_nanos() as u64;
        for percent in [1, 4, 8, 12, 16, 20] {
            let mut farm = far_away(nodes, period, slot * percent / 100);
            farm.run_to_turn_of(0, slot * 3 / 10);
            farm.forget();
            farm.nodes[0].unheard = 1;
            farm.run(20.0);
            let allowed = i64::from(nodes == 1);
            assert!(farm.missed() <= allowed, "{nodes}, {percent}: {} missed", farm.missed());
            assert_eq!(farm.refused(), 0, "{nodes}, {percent}");
            let skipped = farm.notes.iter().filter(|(_, n)| matches!(n, Note::TurnSkipped { .. }));
            assert_eq!(skipped.count(), 0, "{nodes}, {percent}: the beat was sent, and accepted");
            assert_calm(&mut farm);
        }
    }
}

#[test]
fn a_short_outage_costs_two_slots_more_on_a_long_road_too() {
    for way in [3, 45, 76] {
        for tenth in 30..75 {
            let mut farm = far_away(2, Period::DEFAULT, way * 1_000_000);
            farm.forget();
            farm.run(2.37);
            farm.silent = true;
            let seconds = 0.1 * f64::from(tenth);
            farm.run(seconds);
            farm.silent = false;
            farm.run(20.0);
            let allowed = seconds.ceil() as i64 + 2;
            assert!(farm.missed() <= allowed, "{way}, {seconds}: {} missed", farm.missed());
            assert_calm(&mut farm);
        }
    }
}

#[test]
fn another_history_is_reconciled_and_another_server_alone_is_not() {
    for (identity, reconciled) in [
        (ServerIdentity { started: 2, timeline: 1 }, 0),
        (ServerIdentity { started: 2, timeline: 2 }, 3),
    ] {
        let mut farm = Farm::settled(3);
        farm.identity = identity;
        farm.server += 70_000_000;
        farm.run(20.0);
        let reconcile = |(_, work): &&(usize, WorkStatement)| *work == WorkStatement::Reconcile;
        assert_eq!(farm.work.iter().filter(reconcile).count(), reconciled);
        let changed = farm.notes.iter().filter(|(_, note)| *note == Note::ServerChanged).count();
        assert_eq!(changed, 3);
        assert!(farm.missed() <= 3, "{}", farm.missed());
        assert_eq!(farm.ring(), [0, 1, 2]);
        assert_calm(&mut farm);
    }
}

#[test]
fn another_period_is_rolled_out_without_a_slot_missed() {
    for (old, new) in [(1_000, 250), (250, 1_000), (1_000, 3_000)] {
        let mut farm = Farm::settled_with(3, Period::from_millis(old).unwrap());
        let period = Period::from_millis(new).unwrap();
        let now = farm.row.stamp(farm.clock(), None, None);
        let change = Change::period(&farm.row, period, now).unwrap();
        assert!(farm.row.change(now, None, &change));
        farm.run(40.0);
        assert_eq!((farm.missed(), farm.refused()), (0, 0), "{old} -> {new}");
        assert_eq!(farm.row.cadence.period, period);
        assert_calm(&mut farm);
    }
}

#[test]
fn what_a_node_says_of_itself_is_so() {
    let mut farm = Farm::settled(3);
    farm.run(3.3);
    let slot = farm.beats.last().unwrap().slot;
    let mut next: Vec<Slot> = Vec::new();
    for number in 0..3 {
        let node = &farm.nodes[number];
        let now = node.engine.poll_timeout().unwrap().0;
        let status = node.engine.status(now);
        assert_eq!((status.held, status.settled, status.left), (0, true, false));
        assert_eq!(node.engine.held(), Some(0));
        assert_eq!(node.engine.id(), node.id);
        let ring = &node.engine.row().unwrap().roster.last().unwrap().ring;
        assert_eq!(ring[status.rank.unwrap() as usize], node.id);
        assert_eq!(status.next_turn, node.engine.next_turn());
        // Both ways are alike, so that the guess is right.
        let way = status.way_there.unwrap();
        assert!((way - node.way as i64).abs() < 100_000, "{way}");
        next.push(status.next_turn.unwrap());
    }
    next.sort_unstable();
    assert_eq!(next, [slot + 1, slot + 2, slot + 3]);
}
