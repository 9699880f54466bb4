//! Tests of breakers: when they open and close, and whose they are.

use super::*;

const TERMS: Terms = Terms {
    error_rate: 50,
    window_ms: 10_000,
    min_calls: 4,
    open_for_ms: 5_000,
};

fn at(start: Instant, ms: u64) -> Instant {
    start + Duration::from_millis(ms)
}

/// Calls `tool` once.
fn call(breakers: &Breakers, tool: &str, fate: Fate, now: Instant) -> Result<(), Duration> {
    call_at(breakers, "s", tool, fate, now)
}

fn call_at(
    breakers: &Breakers,
    server: &str,
    tool: &str,
    fate: Fate,
    now: Instant,
) -> Result<(), Duration> {
    breakers
        .admit(TERMS, server, tool, now)
        .map(|trial| trial.end(fate, now))
}

/// What turned, `*` standing for the server.
fn turns(turned: &mut UnboundedReceiver<Turn>) -> Vec<String> {
    std::iter::from_fn(|| turned.try_recv().ok())
        .map(|turn| {
            let to = match turn.to {
                Turned::Open { .. } => "open",
                Turned::HalfOpen => "half open",
                Turned::Closed => "closed",
                Turned::Forgotten => "forgotten",
            };
            format!("{} {to}", turn.scope.tool.as_deref().unwrap_or("*"))
        })
        .collect()
}

fn position(breakers: &Breakers, now: Instant) -> Position {
    breakers.standing(Some(TERMS), now)[0].position
}

#[test]
fn it_opens_at_its_share_is_tried_and_closes() {
    let breakers = Breakers::default();
    let mut turned = breakers.turns().unwrap();
    let start = Instant::now();
    for (ms, fate) in [
        (0, Fate::Failed),
        (1, Fate::Answered),
        (2, Fate::Unknown),
        (3, Fate::Answered),
    ] {
        call(&breakers, "t", fate, at(start, ms)).unwrap();
    }
    assert!(turns(&mut turned).is_empty(), "three calls say too little");
    call(&breakers, "t", Fate::Failed, at(start, 4)).unwrap();
    assert_eq!(turns(&mut turned), ["* open", "t open"]);
    let left = Duration::from_millis(4_999);
    assert_eq!(position(&breakers, at(start, 5)), Position::Open(left));
    let wait = call(&breakers, "t", Fate::Answered, at(start, 5)).unwrap_err();
    assert_eq!(wait, Duration::from_millis(4_999));
    // Another tool of the same server.
    call(&breakers, "u", Fate::Answered, at(start, 5)).unwrap_err();
    // One call is let through, whose end decides; a second one waits.
    assert_eq!(position(&breakers, at(start, 5_004)), Position::HalfOpen);
    assert!(turns(&mut turned).is_empty(), "nobody asked yet");
    let probe = breakers.admit(TERMS, "s", "t", at(start, 5_005)).unwrap();
    assert_eq!(turns(&mut turned), ["* half open", "t half open"]);
    let wait = call(&breakers, "t", Fate::Answered, at(start, 5_006)).unwrap_err();
    assert_eq!(wait, PROBING);
    probe.end(Fate::Failed, at(start, 5_007));
    assert_eq!(turns(&mut turned), ["* open", "t open"]);
    call(&breakers, "t", Fate::Answered, at(start, 10_006)).unwrap_err();
    // One that is dropped says nothing, and makes room for another, which turns nothing either.
    drop(breakers.admit(TERMS, "s", "t", at(start, 10_008)).unwrap());
    call(&breakers, "t", Fate::Answered, at(start, 10_009)).unwrap();
    assert_eq!(
        turns(&mut turned),
        ["* half open", "t half open", "* closed", "t closed"]
    );
    let standing = breakers.standing(Some(TERMS), at(start, 10_009));
    assert!(standing.is_empty(), "closed, and not called since");
    call(&breakers, "t", Fate::Failed, at(start, 10_010)).unwrap();
    call(&breakers, "t", Fate::Answered, at(start, 10_011)).unwrap();
}

#[test]
fn what_a_tool_says_of_itself_speaks_against_no_other() {
    let breakers = Breakers::default();
    let now = Instant::now();
    for _ in 0..4 {
        call(&breakers, "t", Fate::ToolFailed, now).unwrap();
    }
    call(&breakers, "t", Fate::Answered, now).unwrap_err();
    call(&breakers, "u", Fate::Answered, now).unwrap();
    let shown = breakers.standing(Some(TERMS), now);
    let positions: Vec<_> = shown.iter().map(|one| (one.calls, one.failed)).collect();
    assert_eq!(positions, [(5, 0), (0, 0), (1, 0)]);
    assert!(matches!(shown[1].position, Position::Open(_)));
}

#[test]
fn what_failed_before_the_window_does_not_count() {
    let breakers = Breakers::default();
    let start = Instant::now();
    for ms in [0, 1, 2] {
        call(&breakers, "t", Fate::Failed, at(start, ms)).unwrap();
    }
    for ms in [10_003, 10_004, 10_005, 10_006, 10_007] {
        call(&breakers, "t", Fate::Answered, at(start, ms)).unwrap();
    }
    assert_eq!(
        breakers.standing(Some(TERMS), at(start, 10_008))[0].failed,
        0
    );
}

#[test]
fn what_began_before_it_opened_does_not_decide_afterwards() {
    let breakers = Breakers::default();
    let start = Instant::now();
    let early = breakers.admit(TERMS, "s", "t", start).unwrap();
    for _ in 0..4 {
        call(&breakers, "t", Fate::Failed, start).unwrap();
    }
    let probe = breakers.admit(TERMS, "s", "t", at(start, 5_001)).unwrap();
    early.end(Fate::Answered, at(start, 5_002));
    call(&breakers, "t", Fate::Answered, at(start, 5_003)).unwrap_err();
    probe.end(Fate::Answered, at(start, 5_004));
    call(&breakers, "t", Fate::Answered, at(start, 5_005)).unwrap();
}

#[test]
fn a_probe_that_is_not_waited_for_decides_nothing_over_the_next() {
    for late in [Fate::Answered, Fate::Failed, Fate::Unknown] {
        let breakers = Breakers::default();
        let start = Instant::now();
        for _ in 0..4 {
            call(&breakers, "t", Fate::Failed, start).unwrap();
        }
        let probe = |ms| breakers.admit(TERMS, "s", "t", at(start, ms));
        let hangs = probe(5_001).unwrap();
        let fails = probe(10_002).unwrap();
        fails.end(Fate::Failed, at(start, 10_003));
        let third = probe(15_004).unwrap();
        hangs.end(late, at(start, 15_005));
        probe(15_006).unwrap_err();
        third.end(Fate::Answered, at(start, 15_007));
        probe(15_008)
            .unwrap()
            .end(Fate::Answered, at(start, 15_009));
        probe(15_010).unwrap();
    }
}

#[test]
fn other_terms_begin_anew() {
    let breakers = Breakers::default();
    let now = Instant::now();
    for _ in 0..4 {
        call(&breakers, "t", Fate::Failed, now).unwrap();
    }
    call(&breakers, "t", Fate::Answered, now).unwrap_err();
    let other = Terms {
        error_rate: 60,
        ..TERMS
    };
    // Of what the policy in force does not have, nothing is told.
    assert_eq!(breakers.standing(Some(TERMS), now).len(), 2);
    for terms in [None, Some(other)] {
        assert!(breakers.standing(terms, now).is_empty(), "{terms:?}");
    }
    drop(breakers.admit(other, "s", "t", now).unwrap());
}

#[test]
fn however_many_tools_one_server_is_said_to_have_others_have_breakers() {
    for fate in [Fate::Answered, Fate::ToolFailed] {
        let breakers = Breakers::default();
        let now = Instant::now();
        for tool in 0..8 * EACH {
            call_at(&breakers, "one", &tool.to_string(), fate, now).unwrap();
        }
        for server in ["one", "other"] {
            for _ in 0..4 {
                call_at(&breakers, server, "t", Fate::ToolFailed, now).unwrap();
            }
            call_at(&breakers, server, "t", Fate::Answered, now).unwrap_err();
            call_at(&breakers, server, "u", Fate::Answered, now).unwrap();
        }
        assert!(breakers.standing(Some(TERMS), now).len() <= EACH + 5);
    }
}

#[test]
fn of_too_many_tools_those_that_are_called_keep_theirs() {
    let breakers = Breakers::default();
    let mut turned = breakers.turns().unwrap();
    let now = Instant::now();
    for _ in 0..4 {
        call(&breakers, "open", Fate::ToolFailed, now).unwrap();
    }
    for round in 0..4 {
        call(&breakers, "t", Fate::ToolFailed, now).unwrap();
        call(&breakers, "open", Fate::Answered, now).unwrap_err();
        for tool in 0..EACH - 2 {
            let tool = format!("{round}.{tool}");
            call(&breakers, &tool, Fate::Answered, now).unwrap();
        }
    }
    call(&breakers, "t", Fate::Answered, now).unwrap_err();
    call(&breakers, "open", Fate::Answered, now).unwrap_err();
    assert_eq!(turns(&mut turned), ["open open", "t open"]);
    // Of one that leaves, it is told that it refuses nothing any more.
    for tool in 0..EACH {
        call(&breakers, &tool.to_string(), Fate::Answered, now).unwrap();
    }
    assert_eq!(turns(&mut turned), ["t forgotten", "open forgotten"]);
    call(&breakers, "t", Fate::Answered, now).unwrap();
    // No name is kept that no tool has.
    let long = "x".repeat(NAME + 1);
    for _ in 0..4 {
        call(&breakers, &long, Fate::ToolFailed, now).unwrap();
    }
    call(&breakers, &long, Fate::Answered, now).unwrap();
    let shown = breakers.standing(Some(TERMS), now);
    assert!(
        !shown
            .iter()
            .any(|one| one.scope.tool.as_deref() == Some(&*long))
    );
}
