//! Promises about the turn row: the stamp, the fence, the changes.

use std::collections::BTreeSet;
use std::time::Duration;

use turnwise_engine::{
    Change, ChangeKind, Epoch, NextPeriod, Period, ServerIdentity, ServerInstant, Slot, TurnKind,
    TurnRow,
};
use turnwise_node::job::JobFate;
use turnwise_node::store::{CheckIn, Store, StoreError};

use crate::member::{Dice, Member, enqueue, id, job};
use crate::world::{NOON, SECOND, World};

pub(crate) async fn one_beat_a_slot<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let mut b = Member::register(&w, 2).await;
    let first = a.beat().await;
    assert!(first.done);
    assert_eq!(first.now, Slot(NOON / SECOND));
    assert_eq!(first.row.slot, first.now);
    let due = enqueue(&a.store, job()).await;
    w.set_clock(NOON + 400_000).await;
    let second = b.beat_for(1, 5).await;
    assert!(!second.done, "a second beat in one slot");
    assert!(second.jobs.is_empty(), "a refused beat claimed");
    assert_eq!(second.now, first.now);
    assert_eq!(second.row.marks[&b.id].read, first.now, "a refused beat is a read all the same");
    assert_eq!(a.store.look().await.unwrap().refused, 1);
    w.set_clock(NOON + SECOND).await;
    let third = b.beat_for(2, 5).await;
    assert!(third.done);
    assert_eq!(third.jobs[0].id, due);
    assert_eq!((third.row.previous, third.row.slot), (first.now, first.now + 1));
    let beats = w.number("SELECT count(*) FROM turnwise.beats").await;
    assert_eq!(beats, Some(2), "a row for each accepted beat and for none else");
    let claimed = w.number("SELECT claimed FROM turnwise.beats ORDER BY slot DESC LIMIT 1").await;
    assert_eq!(claimed, Some(1));
}

pub(crate) async fn beats_at_once_never_share_a_slot<W: World>(w: W) {
    w.run("UPDATE turnwise.turn SET period_ms = 50").await;
    w.let_clock_go().await;
    let mut tasks = Vec::new();
    for number in 1..=8 {
        let mut member = Member::register(&w, number).await;
        tasks.push(tokio::spawn(async move {
            let mut accepted = Vec::new();
            for _ in 0..25 {
                let reply = member.beat().await;
                if reply.done {
                    accepted.push(reply.now);
                }
                tokio::time::sleep(Duration::from_millis(11)).await;
            }
            accepted
        }));
    }
    let mut slots = BTreeSet::new();
    let mut accepted = 0;
    for task in tasks {
        let of_one = task.await.unwrap();
        assert!(of_one.is_sorted());
        accepted += of_one.len();
        slots.extend(of_one);
    }
    assert_eq!(accepted, slots.len(), "a slot was accepted twice");
    assert!(accepted > 1, "time stood still");
    let look = w.store().look().await.unwrap();
    assert_eq!(look.refused as usize, 200 - accepted);
    let beats = w.number("SELECT count(*) FROM turnwise.beats").await;
    assert_eq!(beats, Some(accepted as i64));
}

pub(crate) async fn stamps_and_changes_are_the_engines<W: World>(w: W) {
    for (seed, start, statements) in [(1, NOON, 250), (2, NOON + 77, 250), (3, -3 * SECOND, 100)] {
        w.run(
            "UPDATE turnwise.turn SET epoch = 0, high = 0, slot = 0, previous = 0, bias = 0,
                period_ms = 1000, next_period_ms = NULL, next_period_from = NULL,
                versions = '[]', deputies = '[]', marks = '{}', beaten_at = NULL",
        )
        .await;
        run_against_the_engine(&w, seed, start, statements).await;
    }
}

async fn run_against_the_engine<W: World>(w: &W, seed: u64, start: i64, statements: usize) {
    let mut dice = Dice(seed);
    let mut members = Vec::new();
    for number in 1..=6 {
        members.push(Member::register(w, number).await);
    }
    let store = w.store();
    let identity = members[0].store.stamp().await.unwrap().2;
    w.run("UPDATE turnwise.turn SET high = 0").await;
    let mut model = TurnRow::new(Period::DEFAULT);
    let mut stale = model.clone();
    let mut clock = start;
    let mut committed = 0;
    for step in 0..statements {
        clock += match dice.between(0, 19) {
            0 => dice.between(-4 * SECOND, 4 * SECOND),
            1 => dice.between(-3_600 * SECOND, 3_600 * SECOND),
            2..=9 => 0,
            _ => dice.between(0, 2 * SECOND),
        };
        w.set_clock(clock).await;
        let at = ServerInstant::from_micros(clock);
        let believed = (!dice.one_in(3)).then(|| model.high + dice.between(-5, 40));
        let place = dice.between(0, members.len() as i64 - 1) as usize;
        let context = format!("seed {seed}, step {step}, clock {clock}, believed {believed:?}");
        if dice.one_in(6) {
            stale = model.clone();
        }
        match dice.between(0, 9) {
            0..=2 => {
                let reply = members[place].send(believed, TurnKind::Read).await;
                let now = model.stamp(at, Some(members[place].id), believed);
                assert_eq!((reply.now, &reply.row), (now, &model), "{context}: read");
                assert!(reply.done && !reply.lost);
            }
            3..=5 => {
                let reply = members[place].send(believed, TurnKind::Beat { claim: None }).await;
                let now = model.stamp(at, Some(members[place].id), believed);
                let done = model.beat(now);
                assert_eq!(reply.done, done, "{context}: beat");
                assert_eq!((reply.now, &reply.row), (now, &model), "{context}: beat");
            }
            6 => {
                let (now, row, _) = store.stamp().await.unwrap();
                let expected = model.stamp(at, None, None);
                assert_eq!((now, &row), (expected, &model), "{context}: nobody's stamp");
            }
            _ => {
                let from = if dice.one_in(5) { &stale } else { &model };
                let member = members[place].id;
                let now = from.cadence.slot_at(at).max(from.high);
                let Some(mut change) = random_change(&mut dice, from, member, now) else {
                    continue;
                };
                change.latest = change.latest + dice.between(0, 2);
                let by_nobody = change.kind == ChangeKind::Period;
                let sender = (!by_nobody).then_some(member);
                let stamped = model.stamp(at, sender, if by_nobody { None } else { believed });
                let done = model.change(stamped, sender, &change);
                committed += usize::from(done);
                if by_nobody {
                    let got = store.change(&change, identity).await.unwrap();
                    assert_eq!(got, done, "{context}: {change:?}");
                    let row = store.look().await.unwrap().row;
                    assert_eq!(row, model, "{context}: {change:?}");
                } else {
                    let kind = TurnKind::Change { change: change.clone(), identity };
                    let reply = members[place].send(believed, kind).await;
                    assert_eq!(reply.done, done, "{context}: {change:?}");
                    assert_eq!((reply.now, &reply.row), (stamped, &model), "{context}: {change:?}");
                }
            }
        }
    }
    assert!(committed > statements / 20, "only {committed} changes committed with seed {seed}");
}

fn random_change(
    dice: &mut Dice,
    row: &TurnRow,
    member: turnwise_engine::NodeId,
    now: Slot,
) -> Option<Change> {
    match dice.between(0, 7) {
        0..=2 => Change::join(row, member, now),
        3 => {
            let victims: Vec<_> =
                (1..=6).map(id).filter(|node| *node != member && dice.one_in(3)).collect();
            let mut change = Change::remove(row, member, &victims, now)?;
            if dice.one_in(4) {
                change.victims[0].1 = Some(now - 1);
            }
            Some(change)
        }
        4 => Change::leave(row, member, now, now),
        5 => Some(Change::takeover(row, member, now)),
        _ => {
            let millis = dice.between(50, 10_000) as u32;
            Change::period(row, Period::from_millis(millis).unwrap(), now)
        }
    }
}

pub(crate) async fn a_change_commits_on_what_it_was_computed_from<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let mut b = Member::register(&w, 2).await;
    let seen = a.read().await;
    let join = Change::join(&seen.row, a.id, seen.now).unwrap();

    // Another server.
    let elsewhere = ServerIdentity { timeline: seen.identity.timeline + 1, ..seen.identity };
    assert!(!a.change_on(join.clone(), elsewhere).await.done, "on another server");
    let elsewhere = ServerIdentity { started: seen.identity.started - 1, ..seen.identity };
    assert!(!a.change_on(join.clone(), elsewhere).await.done, "on another start of it");
    // Too late.
    w.set_clock(NOON + SECOND).await;
    let late = a.change(join.clone()).await;
    assert!(!late.done, "after its slot");
    assert_eq!(late.row.epoch, Epoch(0));
    // In time; and then from an epoch that has passed.
    let join = Change { latest: late.now, ..join };
    let joined = a.change(join.clone()).await;
    assert!(joined.done);
    assert_eq!(joined.row.epoch, Epoch(1));
    assert_eq!(joined.row.roster.versions, join.roster.versions);
    assert!(!a.change(join).await.done, "from an old epoch");

    // A victim that has read since.
    let seen = b.read().await;
    let change = Change::join(&seen.row, b.id, seen.now).unwrap();
    assert!(b.change(change).await.done);
    let seen = a.read().await;
    w.set_clock(NOON + 2 * SECOND).await;
    let now = seen.now + 1;
    let remove = Change::remove(&seen.row, a.id, &[b.id], now).unwrap();
    b.read().await;
    assert!(!a.change(remove).await.done, "the victim has read the row since");
    let seen = a.read().await;
    let remove = Change::remove(&seen.row, a.id, &[b.id], seen.now).unwrap();
    let removed = a.change(remove).await;
    assert!(removed.done);
    assert!(!removed.row.roster.is_member(b.id));

    // A takeover waits until nobody else can act.
    let mut c = Member::register(&w, 3).await;
    let seen = c.read().await;
    assert!(!c.change(Change::takeover(&seen.row, c.id, seen.now)).await.done, "others may act");
    let others = seen.row.marks.iter().filter(|(node, _)| **node != c.id);
    let until = others.map(|(_, mark)| mark.until).max().unwrap();
    w.set_clock(until.0 * SECOND).await;
    let seen = c.read().await;
    assert_eq!(seen.now, until);
    let early = c.change(Change::takeover(&seen.row, c.id, seen.now)).await;
    assert!(!early.done, "another may act in this very slot");
    w.set_clock((until.0 + 1) * SECOND).await;
    let seen = c.read().await;
    let taken = c.change(Change::takeover(&seen.row, c.id, seen.now)).await;
    assert!(taken.done);
    assert_eq!(taken.row.roster.versions.len(), 1);
    assert!(taken.row.marks.keys().eq([&c.id]), "marks of those that lapsed are forgotten");

    // Who leaves forgets its own mark.
    w.set_clock((until.0 + 2) * SECOND).await;
    let beat = c.beat().await;
    let left = c.change(Change::leave(&beat.row, c.id, beat.now, beat.now).unwrap()).await;
    assert!(left.done && !left.row.marks.contains_key(&c.id));
}

pub(crate) async fn a_change_of_the_period_takes_effect_at_its_slot<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let (now, row, identity) = a.store.stamp().await.unwrap();
    let half = Period::from_millis(500).unwrap();
    let change = Change::period(&row, half, now).unwrap();
    let from = change.next_period.unwrap().from;
    assert!(a.store.change(&change, identity).await.unwrap());
    let pending = a.read().await.row.cadence;
    assert_eq!(pending.next, Some(NextPeriod { from, period: half }));
    assert_eq!(a.store.agree_period(Some(half)).await.unwrap(), Period::DEFAULT, "the pending one");
    assert_eq!(a.store.agree_period(None).await.unwrap(), Period::DEFAULT);
    w.set_clock(NOON + (from - now) * SECOND).await;
    let beat = a.beat().await;
    assert_eq!(beat.now, from);
    assert_eq!((beat.row.cadence.period, beat.row.cadence.next), (half, None));
    w.set_clock(NOON + (from - now) * SECOND + SECOND / 2).await;
    assert_eq!(a.beat().await.now, from + 1);
    let wanted = Some(Period::DEFAULT);
    let refused = a.store.agree_period(wanted).await;
    assert!(matches!(refused, Err(StoreError::OtherPeriod { has, .. }) if has == half));
}

pub(crate) async fn a_clock_set_back_never_repeats_a_slot<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let before = a.beat().await;
    w.set_clock(NOON - 3_600 * SECOND).await;
    let mut last = before.now;
    for step in 1..5 {
        let clock = NOON - 3_600 * SECOND + step * SECOND;
        w.set_clock(clock).await;
        let reply = a.send(Some(last + 1), TurnKind::Beat { claim: None }).await;
        assert!(reply.done && reply.now > last, "{} after {last}", reply.now);
        assert_eq!(
            reply.row.cadence.boundary(reply.now),
            ServerInstant::from_micros(clock),
            "boundaries stay on whole seconds"
        );
        last = reply.now;
    }
    assert_eq!(last, before.now + 4);
}

pub(crate) async fn stamps_of_an_exchange_lie_within_it<W: World>(w: W) {
    w.let_clock_go().await;
    let mut a = Member::register(&w, 1).await;
    let reply = a.read().await;
    let exchange = reply.exchange;
    let here = exchange.received.nanos_from(exchange.sent);
    let there = exchange.answered.nanos_from(exchange.arrived);
    assert!(there >= 0 && there <= here, "{there} ns there, {here} ns here");
    let off = w.host_nanos() - exchange.answered.as_nanos();
    assert!(off.abs() < 60_000_000_000, "the stamps are {off} ns off the host's clock");
}

pub(crate) async fn a_day_of_beats_is_kept<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let now = NOON / SECOND;
    let rows: Vec<_> = [now - 86_465, now - 86_401, now - 86_400, now - 86_399, now - 1]
        .iter()
        .map(|slot| format!("({slot}, '{}', {}, 0)", a.id, W::instant(NOON)))
        .collect();
    w.run(&format!(
        "INSERT INTO turnwise.beats (slot, node, arrived_at, claimed) VALUES {}",
        rows.join(", ")
    ))
    .await;
    // 1,800,000,000 is a multiple of 64.
    assert!(a.beat().await.done);
    assert_eq!(w.number("SELECT count(*) FROM turnwise.beats").await, Some(3));
    let oldest = w.number("SELECT min(slot) FROM turnwise.beats").await;
    assert_eq!(oldest, Some(now - 86_399));
}

pub(crate) async fn a_statement_of_a_node_is_a_check_in<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let last = W::micros("last_check_in");
    let lease = W::micros("lease_until");
    let seen = format!("SELECT {last} FROM turnwise.nodes");
    let until = format!("SELECT {lease} FROM turnwise.nodes");
    for (step, what) in ["beat", "read", "renew", "claim", "recover", "end"].iter().enumerate() {
        let at = NOON + (step as i64 + 1) * SECOND;
        w.set_clock(at).await;
        match *what {
            "beat" => drop(a.beat().await),
            "read" => drop(a.read().await),
            "renew" => assert_eq!(a.renew().await, CheckIn::Alive),
            "claim" => assert!(a.claim(1, 1).await.is_empty()),
            "recover" => {
                let report = Default::default();
                let token = turnwise_engine::Token(1);
                drop(a.store.recover(a.id, token, &report).await.unwrap());
            }
            _ => assert_eq!(a.store.end(a.id, &[]).await.unwrap(), (Vec::new(), CheckIn::Alive)),
        }
        assert_eq!(w.number(&seen).await, Some(at), "{what}");
        assert_eq!(w.number(&until).await, Some(at + 2_500_000), "{what}");
    }
    w.run("UPDATE turnwise.turn SET period_ms = 3001").await;
    a.renew().await;
    assert_eq!(w.number(&until).await, Some(NOON + 6 * SECOND + 7_502_000));
}

pub(crate) async fn a_check_in_beside_work_is_written_a_fifth_of_a_lease_after_the_last<
    W: World,
>(
    w: W,
) {
    let mut a = Member::register(&w, 1).await;
    let last = format!("SELECT {} FROM turnwise.nodes", W::micros("last_check_in"));
    let until = format!("SELECT {} FROM turnwise.nodes", W::micros("lease_until"));
    let mut token = 0;
    // After the last check-in: whether a claim and an end write another.
    for (step, (after, is_written)) in [(499_000, false), (501_000, true)].into_iter().enumerate() {
        for ends in [false, true] {
            let begun = NOON + (2 * step as i64 + i64::from(ends) + 1) * 10 * SECOND;
            w.set_clock(begun).await;
            a.beat().await;
            enqueue(&a.store, job()).await;
            token += 1;
            let claimed = if ends { Some(a.claim_one(token).await) } else { None };
            w.set_clock(begun + after).await;
            match claimed {
                Some(job) => drop(a.end(&job, JobFate::Succeeded).await),
                None => drop(a.claim_one(token).await),
            }
            let written = begun + if is_written { after } else { 0 };
            let what = if ends { "end" } else { "claim" };
            assert_eq!(w.number(&last).await, Some(written), "{what} after {after} us");
            assert_eq!(
                w.number(&until).await,
                Some(written + 2_500_000),
                "{what} after {after} us"
            );
            // A renewal and the statements on the turn row always are.
            w.set_clock(begun + after + 1_000).await;
            assert_eq!(a.renew().await, CheckIn::Alive);
            assert_eq!(w.number(&last).await, Some(begun + after + 1_000));
            w.set_clock(begun + after + 2_000).await;
            a.read().await;
            assert_eq!(w.number(&last).await, Some(begun + after + 2_000));
        }
    }
    // A clock that was set back leaves no lease from the time before.
    w.set_clock(NOON - 3_600 * SECOND).await;
    assert!(a.claim(token + 1, 1).await.is_empty());
    assert_eq!(w.number(&until).await, Some(NOON - 3_600 * SECOND + 2_500_000));
}
