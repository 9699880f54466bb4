//! Counters that are bounded, given back and taken up again.

use exeat_policy::{Cap, Used};

use super::*;

const START: Timestamp = Timestamp::from_seconds(1_795_219_200);
const RATE: Cap = Cap::Rate {
    calls: 2,
    window_ms: 60_000,
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(START.as_millis() + seconds * 1000)
}

fn key(name: &str, cap: Cap) -> LimitKey {
    LimitKey {
        limit: 0,
        key: name.to_owned(),
        cap,
        amount: Some(Amount::from_billionths(7)),
        refund: true,
        session: true,
    }
}

fn charge(counters: &Counters, name: &str, cap: Cap, session: &str, now: Timestamp) -> Vec<Charge> {
    let held = counters.hold(vec![key(name, cap)], Some(session), now);
    assert_eq!(held.counts().len(), 1);
    held.charge()
}

fn used(counters: &Counters, name: &str, cap: Cap, now: Timestamp) -> Used {
    counters.count(&key(name, cap), now).used
}

/// Writes all that is to be written to the end of `file`, or in its place.
fn write(counters: &Counters, file: &mut String, now: Timestamp) -> bool {
    let Unwritten { text, anew } = counters.unwritten(file.len() as u64, now);
    if anew {
        file.clear();
    }
    file.push_str(&text);
    anew
}

#[test]
fn what_is_given_back_can_be_taken_again() {
    let counters = Counters::default();
    let sum = Cap::Sum {
        max: Amount::from_billionths(20),
        window_ms: 60_000,
    };
    for cap in [Cap::Calls(3), RATE, sum] {
        let name = cap.to_string();
        let before = used(&counters, &name, cap, at(2));
        charge(&counters, &name, cap, "s", at(0));
        let one = used(&counters, &name, cap, at(2));
        let charges = charge(&counters, &name, cap, "s", at(1));
        assert_ne!(used(&counters, &name, cap, at(2)), one);
        counters.refund(charges);
        assert_eq!(used(&counters, &name, cap, at(2)), one, "{name}");
        if cap != RATE {
            assert_ne!(one, before, "{name}");
        }
    }
}

#[test]
fn the_next_gate_goes_on_where_this_one_ended() {
    let counters = Counters::default();
    let mut file = String::new();
    assert!(!write(&counters, &mut file, at(0)));
    charge(&counters, "calls", Cap::Calls(5), "s", at(0));
    charge(&counters, "rate", RATE, "s", at(0));
    write(&counters, &mut file, at(0));
    let charges = charge(&counters, "calls", Cap::Calls(5), "s", at(1));
    charge(&counters, "calls", Cap::Calls(5), "s", at(2));
    counters.refund(charges);
    charge(&counters, "rate", RATE, "s", at(2));
    write(&counters, &mut file, at(2));
    let torn = format!("{file}+ 00");
    for (text, sessions) in [(file.as_str(), true), (torn.as_str(), true), (&file, false)] {
        let next = Counters::default();
        let count = next.restore(text, sessions, at(3)).unwrap();
        assert_eq!(count, if sessions { 2 } else { 0 });
        assert_eq!(next.knows("s"), sessions);
        assert!(!next.knows("t"));
        if sessions {
            for (name, cap) in [("calls", Cap::Calls(5)), ("rate", RATE)] {
                let before = used(&counters, name, cap, at(3));
                assert_eq!(used(&next, name, cap, at(3)), before, "{name}");
            }
            // What was read is written anew, and read the same again.
            let mut anew = String::new();
            assert!(write(&next, &mut anew, at(3)));
            let third = Counters::default();
            assert_eq!(third.restore(&anew, true, at(3)), Ok(2));
            let Used::Nth(Some(first)) = used(&third, "rate", RATE, at(3)) else {
                panic!("two calls were made");
            };
            assert_eq!(first, at(0));
        }
    }
    // What is over by then is not taken up.
    assert_eq!(Counters::default().restore(&file, true, at(100)), Ok(1));
    assert_eq!(Counters::default().restore(&file, true, at(90_000)), Ok(0));
    Counters::default()
        .restore("n x\n", true, at(0))
        .unwrap_err();
}

#[test]
fn what_is_written_stays_in_proportion() {
    let counters = Counters::default();
    let mut file = String::new();
    let (mut longest, mut anew) = (0, 0);
    for call in 0..200_000 {
        charge(&counters, "one", Cap::Calls(u64::MAX), "s", at(call / 1000));
        if call % 1000 == 0 {
            anew += u32::from(write(&counters, &mut file, at(call / 1000)));
            longest = longest.max(file.len());
        }
    }
    assert!(anew > 0);
    assert!(
        u64::try_from(longest).unwrap() < 2 * SLACK,
        "{longest} bytes"
    );
    // Where nothing can be written for long, nothing piles up.
    for call in 200_000..300_000 {
        charge(&counters, "one", Cap::Calls(u64::MAX), "s", at(call / 1000));
        assert!(counters.lock().pending.len() <= PENDING + 1024);
    }
    counters.write_anew();
    assert!(write(&counters, &mut file, at(300)));
    let next = Counters::default();
    next.restore(&file, true, at(301)).unwrap();
    let calls = used(&next, "one", Cap::Calls(u64::MAX), at(301));
    assert_eq!(calls, Used::Calls(300_000));
}

#[test]
fn a_call_without_room_for_its_counter_has_no_count() {
    let counters = Counters::default();
    for number in 0..MOST {
        let name = number.to_string();
        drop(
            counters
                .hold(vec![key(&name, Cap::Calls(1))], Some("s"), at(0))
                .charge(),
        );
    }
    let held = counters.hold(vec![key("one more", Cap::Calls(1))], Some("s"), at(1));
    assert!(held.counts().is_empty());
    drop(held);
    // A day later they are of sessions that are over.
    let held = counters.hold(vec![key("one more", Cap::Calls(1))], Some("s"), at(90_000));
    assert_eq!(held.counts().len(), 1);
    drop(held);
    assert_eq!(counters.lock().kept.len(), 1);
}

#[test]
fn points_in_time_have_a_bound_of_their_own() {
    let counters = Counters::default();
    let rate = Cap::Rate {
        calls: 10_000,
        window_ms: 60_000,
    };
    counters.lock().recent = MOST_RECENT;
    let held = counters.hold(
        vec![key("rate", rate), key("calls", Cap::Calls(1))],
        Some("s"),
        at(0),
    );
    // Those that are counted wrongly are counted anew first.
    assert_eq!(held.counts().len(), 2);
    drop(held);
    counters.lock().recent = MOST_RECENT;
    let held = counters.hold(
        vec![key("rate", rate), key("calls", Cap::Calls(1))],
        Some("s"),
        at(0),
    );
    assert_eq!(held.counts().len(), 1, "only what needs no point in time");
}

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let mut words = line.unwrap().split_whitespace();
    words.nth(1).unwrap().parse().unwrap()
}

/// The figure alone: `cargo test -p exeat --lib a_hundred_thousand_sessions -- --nocapture`.
#[test]
fn a_hundred_thousand_sessions_fit_into_200_mib() {
    const MIB: usize = 1 << 20;
    let before = resident();
    let counters = Counters::default();
    for session in 0..100_000 {
        let session = format!("cgroup:123456/{session:064x}");
        let keys = [
            ("30 calls at=6:github tool=9:get_issue", 30),
            ("100 calls at=6:github", 100),
        ];
        let keys = keys.map(|(name, calls)| {
            let name = format!("{name} session={}:{session}", session.len());
            key(&name, Cap::Calls(calls))
        });
        let held = counters.hold(keys.to_vec(), Some(&session), at(0));
        assert_eq!(held.counts().len(), 2);
        drop(held.charge());
        counters.lock().pending.clear();
    }
    // Other tests of this process may have grown meanwhile.
    let grown = resident().saturating_sub(before) / 1024;
    println!("100,000 sessions with two limits each: at most {grown} MiB");
    assert_eq!(counters.lock().kept.len(), 200_000);
    // All that can ever be kept: slots of the table are a power of two, of which seven eighths are used, with a byte
    // for each; a queue has room for twice its calls.
    let slots = (MOST * 8 / 7).next_power_of_two();
    let table = slots * (size_of::<(Name, Kept)>() + 1);
    let calls = 2 * MOST_RECENT * size_of::<(Timestamp, Amount)>();
    let most = table + calls + PENDING;
    assert!(most <= 200 * MIB, "{} MiB", most / MIB);
}
