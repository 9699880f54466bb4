//! Counters that are bounded, given back and taken up again.

use std::process::Command;

use exeat_policy::{Cap, Used, Workload};

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

/// Whose calls those are of tests that are not about that.
const OWNER: u64 = 1;

fn charge(counters: &Counters, name: &str, cap: Cap, session: &str, now: Timestamp) -> Vec<Charge> {
    let held = counters.hold(vec![key(name, cap)], OWNER, Some(session), now);
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

/// A policy that allows more or less goes on with what was counted, and so does the gate after it.
#[test]
fn another_cap_goes_on_with_what_was_counted() {
    let rate = |calls| Cap::Rate {
        calls,
        window_ms: 60_000,
    };
    let counters = Counters::default();
    let mut file = String::new();
    for second in [0, 1] {
        charge(&counters, "rate", rate(2), "s", at(second));
        charge(&counters, "calls", Cap::Calls(5), "s", at(second));
    }
    write(&counters, &mut file, at(1));
    let fewer = used(&counters, "calls", Cap::Calls(1), at(2));
    assert_eq!(fewer, Used::Calls(2));
    let fewer = used(&counters, "rate", rate(1), at(2));
    assert_eq!(fewer, Used::Nth(Some(at(1))));
    // More, of which all count from then on: also what was made before, and also for the next gate.
    for second in [2, 3] {
        charge(&counters, "rate", rate(4), "s", at(second));
    }
    write(&counters, &mut file, at(3));
    let next = Counters::default();
    assert_eq!(next.restore(&file, true, at(4)), Ok(2));
    for counters in [&counters, &next] {
        let four = used(counters, "rate", rate(4), at(4));
        assert_eq!(four, Used::Nth(Some(at(0))));
        assert_eq!(used(counters, "rate", rate(5), at(4)), Used::Nth(None));
        let two = used(counters, "rate", rate(2), at(4));
        assert_eq!(two, Used::Nth(Some(at(2))));
    }
}

/// Limits that differ in how much they allow share a counter, to which a call is charged once, and given back once.
#[test]
fn a_call_is_charged_once_to_a_counter() {
    let counters = Counters::default();
    let rate = |calls| Cap::Rate {
        calls,
        window_ms: 60_000,
    };
    let call = |second| {
        let keys = [rate(2), rate(3)].map(|cap| key("rate", cap)).into();
        let held = counters.hold(keys, OWNER, Some("s"), at(second));
        assert_eq!(held.counts().len(), 2);
        held.charge()
    };
    drop((call(0), call(1)));
    counters.refund(call(2));
    drop(call(3));
    let third = used(&counters, "rate", rate(3), at(4));
    assert_eq!(third, Used::Nth(Some(at(0))));
    assert_eq!(used(&counters, "rate", rate(4), at(4)), Used::Nth(None));
}

#[test]
fn a_number_of_calls_is_forgotten_with_its_session_or_for_lack_of_room() {
    let counters = Counters::default();
    let lasting = LimitKey {
        session: false,
        ..key("lasting", Cap::Calls(1))
    };
    drop(
        counters
            .hold(vec![lasting], OWNER, Some("s"), at(0))
            .charge(),
    );
    charge(&counters, "of a session", Cap::Calls(1), "s", at(0));
    let mut file = String::new();
    counters.write_anew();
    write(&counters, &mut file, at(0));
    let next = Counters::default();
    assert_eq!(next.restore(&file, true, at(90_000)), Ok(1));
    let lasts = |counters: &Counters| used(counters, "lasting", Cap::Calls(1), at(90_000));
    assert_eq!(lasts(&next), Used::Calls(1));
    next.write_anew();
    write(&next, &mut file, at(90_000));
    assert_eq!(lasts(&next), Used::Calls(1), "written anew");
    // Nobody lifts it by filling what a caller may; where nobody can come any more, it makes room.
    fill(&next, OWNER, at(90_000));
    assert_eq!(lasts(&next), Used::Calls(1), "of one caller");
    for owner in 2..25 {
        fill(&next, owner, at(90_000));
    }
    assert_eq!(next.lock().kept.len(), MOST);
    assert_eq!(lasts(&next), Used::Calls(1), "all is full");
    assert!(counts(&next, "newcomer", 1000, at(90_002)));
    assert_eq!(lasts(&next), Used::Calls(0));
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

/// Whether a call of `owner` finds a counter of this name, or room for one.
fn counts(counters: &Counters, name: &str, owner: u64, now: Timestamp) -> bool {
    let held = counters.hold(vec![key(name, Cap::Calls(1))], owner, Some("s"), now);
    let counts = held.counts().len() == 1;
    drop(held.charge());
    counts
}

/// How many counters `owner` can make before it has as many as it may.
fn fill(counters: &Counters, owner: u64, now: Timestamp) -> usize {
    let fits = |number: &usize| counts(counters, &format!("{owner} {number}"), owner, now);
    (0..=MOST).take_while(fits).count()
}

#[test]
fn a_call_without_room_for_its_counter_has_no_count() {
    let counters = Counters::default();
    assert_eq!(fill(&counters, 1, at(0)), MOST / 2);
    assert!(!counts(&counters, "one more", 1, at(1)));
    assert!(counts(&counters, "1 0", 1, at(1)), "what it has stays");
    // A day later they are of sessions that are over.
    assert!(counts(&counters, "one more", 1, at(90_000)));
    assert_eq!(counters.lock().kept.len(), 1);
    let share = Share {
        counters: 1,
        recent: 0,
    };
    assert_eq!(counters.lock().shares, HashMap::from([(Some(1), share)]));
}

#[test]
fn no_caller_keeps_another_from_its_counters() {
    let counters = Counters::default();
    // Each has half of what the ones before left.
    for (owner, share) in [(1, 2), (2, 4), (3, 8)] {
        assert_eq!(fill(&counters, owner, at(0)), MOST / share, "{owner}");
    }
    assert!(counts(&counters, "another's", 4, at(0)));
    assert!(!counts(&counters, "one more", 1, at(0)));
    // Whose counters the next gate finds, it does not know; there is room beside them all the same.
    let mut file = String::new();
    counters.write_anew();
    write(&counters, &mut file, at(0));
    let next = Counters::default();
    next.restore(&file, true, at(1)).unwrap();
    assert!(counts(&next, "new", 1, at(1)));
}

#[test]
fn callers_are_told_apart_by_workload_and_identity() {
    let counters = Counters::default();
    let caller = |workload, user| Caller {
        workload: Some(workload),
        user: Some(user),
        ..Caller::default()
    };
    let all = [
        caller(Workload::Host("a"), "ann"),
        caller(Workload::Host("a"), "bob"),
        caller(Workload::Server("a"), "ann"),
        Caller::default(),
    ];
    let owners: HashSet<u64> = all.iter().map(|caller| counters.owner(caller)).collect();
    assert_eq!(owners.len(), all.len());
    assert_eq!(counters.owner(&all[0]), counters.owner(&all[0]));
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
        OWNER,
        Some("s"),
        at(0),
    );
    // Those that are counted wrongly are counted anew first.
    assert_eq!(held.counts().len(), 2);
    drop(held);
    counters.lock().recent = MOST_RECENT;
    let held = counters.hold(
        vec![key("rate", rate), key("calls", Cap::Calls(1))],
        OWNER,
        Some("s"),
        at(0),
    );
    assert_eq!(held.counts().len(), 1, "only what needs no point in time");
}

#[test]
fn no_caller_uses_up_the_points_in_time() {
    let counters = Counters::default();
    let rate = Cap::Rate {
        calls: 10_000,
        window_ms: 60_000,
    };
    let hold = |owner: u64| {
        let name = owner.to_string();
        counters.hold(vec![key(&name, rate)], owner, Some("s"), at(0))
    };
    drop(hold(1).charge());
    let share = |recent| Share {
        counters: 1,
        recent,
    };
    assert_eq!(counters.lock().shares, HashMap::from([(Some(1), share(1))]));
    let half = MOST_RECENT / 2;
    counters.lock().swept = Some(at(0));
    counters.lock().recent = half;
    counters.lock().shares.insert(Some(1), share(half));
    assert!(hold(1).counts().is_empty());
    assert_eq!(hold(2).counts().len(), 1);
}

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let mut words = line.unwrap().split_whitespace();
    words.nth(1).unwrap().parse().unwrap()
}

/// Tells the process that runs one test alone.
const ALONE: &str = "EXEAT_TEST_ALONE";

/// The figure: `cargo test -p exeat --lib a_hundred_thousand_sessions -- --nocapture`.
#[test]
fn a_hundred_thousand_sessions_fit_into_200_mib() {
    const MIB: usize = 1 << 20;
    // In a process of its own, since tests beside it would let this one grow.
    if std::env::var_os(ALONE).is_none() {
        let name = "decide::counters::tests::a_hundred_thousand_sessions_fit_into_200_mib";
        let mut own = Command::new(std::env::current_exe().unwrap());
        own.args(["--exact", name, "--nocapture"]).env(ALONE, "1");
        let done = own.output().unwrap();
        let told = String::from_utf8_lossy(&done.stdout);
        print!("{told}");
        let failed = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{told}{failed}");
        assert!(told.contains("1 passed"), "{told}");
        return;
    }
    let before = resident();
    let counters = Counters::default();
    let rate = Cap::Rate {
        calls: 60,
        window_ms: 60_000,
    };
    for number in 0..100_000 {
        let session = format!("cgroup:123456/{number:064x}");
        let owner = number / 100;
        let mut keys = vec![(format!("60 per 60 s identity={owner:032x} tool=get"), rate)];
        for (name, calls) in [
            ("30 calls at=6:github tool=9:get_issue", 30),
            ("100 calls at=6:github", 100),
        ] {
            let name = format!("{name} session={}:{session}", session.len());
            keys.push((name, Cap::Calls(calls)));
        }
        let keys = keys.iter().map(|(name, cap)| key(name, *cap)).collect();
        let held = counters.hold(keys, owner, Some(&session), at(0));
        assert_eq!(held.counts().len(), 3);
        drop(held.charge());
        counters.lock().pending.clear();
    }
    let grown = resident().saturating_sub(before) / 1024;
    println!(
        "100,000 sessions with two limits each, and one for each of 1,000 callers: {grown} MiB"
    );
    assert_eq!(counters.lock().kept.len(), 201_000);
    assert!((1..=200).contains(&grown), "{grown} MiB");
    // All that can ever be kept: slots of the table are a power of two, of which seven eighths are used, with a byte
    // for each; a queue has room for twice its calls.
    let slots = (MOST * 8 / 7).next_power_of_two();
    let table = slots * (size_of::<(Name, Kept)>() + 1);
    let calls = 2 * MOST_RECENT * size_of::<(Timestamp, Amount)>();
    let most = table + calls + PENDING;
    assert!(most <= 200 * MIB, "{} MiB", most / MIB);
}
