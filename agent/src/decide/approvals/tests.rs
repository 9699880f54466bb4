//! Waiting, deciding, and what is left for the next gate.

use std::collections::BTreeSet;

use exeat_policy::{Reason, Source, compile};
use tokio::sync::mpsc;

use super::asking::USERS;
use super::*;
use crate::channel::{APPROVAL_NAME, ApprovalCaller, MOST_APPROVALS, ToSupervisor};
use crate::decide::{Decider, McpMessage, Message, Permit, Refused};
use crate::decode::json::{Limits, parse};

fn set() -> PolicySet {
    let text = "version: 1
servers: { bank: { url: 'https://bank.example/' } }
identities: { boss: { user: bob } }
rules: [{ id: ask, servers: [bank], tools: [pay], effect: approve, approvers: [boss] }]
";
    let source = Source {
        name: "p.yaml".into(),
        text: text.into(),
    };
    compile(&[source]).unwrap()
}

fn asking(bound: &str, uid: u32) -> Asking<'_> {
    Asking {
        server: "bank",
        tool: "pay",
        rules: vec!["ask".into()],
        caller: ApprovalCaller {
            workload: None,
            user: Some(format!("user{uid}")),
            uid,
            token: None,
            uids: vec![uid],
        },
        token: None,
        certificate: None,
        record: String::new(),
        arguments: bound,
        bound,
        beside: &[],
        shown: Shown {
            arguments: serde_json::Value::Null,
            further: Vec::new(),
            subject: None,
            names: BTreeSet::new(),
        },
        wait: Duration::from_mins(10),
    }
}

impl Ticket {
    /// For tests of what waits with one; nobody decides.
    pub(crate) fn for_tests(wait: Duration) -> Self {
        let approvals = Approvals::new(Vec::new(), CancellationToken::new());
        let asking = Asking {
            wait,
            ..asking("{}", 1)
        };
        approvals.ask(asking).unwrap()
    }
}

fn user(user: &str, uid: u32) -> Approver {
    Approver {
        uid,
        user: user.to_owned(),
    }
}

/// Approvals with a supervisor that keeps what it is told, and what that is.
fn kept(left: Vec<Approval>) -> (Arc<Approvals>, CancellationToken, Arc<Mutex<Vec<Approval>>>) {
    let stopping = CancellationToken::new();
    let approvals = Approvals::new(left, stopping.clone());
    let (keeper, mut keeping) = mpsc::channel::<KeepRequest>(1);
    let disk = Arc::<Mutex<Vec<Approval>>>::default();
    let written = Arc::clone(&disk);
    tokio::spawn(Arc::clone(&approvals).keep(keeper));
    tokio::spawn(async move {
        while let Some(request) = keeping.recv().await {
            *written.lock().unwrap() = request.waiting;
            request.reply.send(Ok(())).unwrap();
        }
    });
    (approvals, stopping, disk)
}

#[tokio::test]
async fn an_approval_is_for_one_call_and_used_once() {
    let (approvals, _stopping, disk) = kept(Vec::new());
    let mut ticket = approvals.ask(asking("{}", 1)).unwrap();
    let second = approvals.ask(asking("{}", 1)).unwrap();
    let id = ticket.approval().id.clone();
    assert_ne!(id, second.approval().id);
    for (who, refused) in [
        (user("bob", 1), Undecided::OwnCall),
        (user("user1", 5), Undecided::OwnCall),
        (user("eve", 2), Undecided::NotFound),
    ] {
        let undecided = approvals.reserve(&id, &who, &set()).unwrap_err();
        assert_eq!(undecided, refused, "{who:?}");
    }
    let reserved = approvals.reserve(&id, &user("bob", 3), &set()).unwrap();
    let root = approvals.reserve(&id, &user("root", 0), &set());
    assert_eq!(root.unwrap_err(), Undecided::Decided);
    reserved.grant().await.unwrap();
    let twice = approvals.reserve(&id, &user("bob", 3), &set());
    assert_eq!(twice.unwrap_err(), Undecided::Decided);
    assert!(matches!(ticket.wait().await, Word::Granted));
    let (approval, approved) = ticket.redeem(Admission::FREE).await.unwrap();
    assert_eq!(approval.granted.unwrap().user, "bob");
    assert!(approved.suits(&set(), &["ask".into()]));
    let more = ["ask".into(), "other".into()];
    assert!(!approved.suits(&set(), &more) && !approved.suits(&set(), &[]));
    let left: Vec<String> = disk
        .lock()
        .unwrap()
        .iter()
        .map(|one| one.id.clone())
        .collect();
    assert_eq!(
        left,
        [second.approval().id.clone()],
        "it is gone from the disk"
    );
    let gone = approvals.reserve(&id, &user("bob", 3), &set());
    assert_eq!(gone.unwrap_err(), Undecided::NotFound);
}

#[tokio::test]
async fn a_decision_that_is_not_carried_out_leaves_the_call_waiting() {
    let (approvals, _stopping, _disk) = kept(Vec::new());
    let mut ticket = approvals.ask(asking("{}", 1)).unwrap();
    let id = ticket.approval().id.clone();
    drop(approvals.reserve(&id, &user("bob", 3), &set()).unwrap());
    let reserved = approvals.reserve(&id, &user("root", 0), &set()).unwrap();
    reserved.deny(Some("no".into())).unwrap();
    let Word::Denied { by, reason } = ticket.wait().await else {
        panic!("it is denied")
    };
    assert_eq!((by.uid, reason.as_deref()), (0, Some("no")));
    assert!(matches!(
        ticket.redeem(Admission::FREE).await,
        Err(NotKept::Ended)
    ));
}

#[tokio::test]
async fn who_goes_away_waits_no_more_and_what_a_gate_leaves_is_taken_up() {
    let (approvals, stopping, disk) = kept(Vec::new());
    drop(approvals.ask(asking("{}", 1)).unwrap());
    assert!(approvals.waiting(|_| true).is_empty());
    let mut ticket = approvals.ask(asking("{\"a\":1}", 1)).unwrap();
    let id = ticket.approval().id.clone();
    let version = approvals.lock().version;
    approvals.kept(version).await.unwrap();
    stopping.cancel();
    assert!(matches!(ticket.wait().await, Word::Stopping));
    drop(ticket);
    let left = disk.lock().unwrap().clone();
    assert_eq!(left.len(), 1);

    let (approvals, _stopping, disk) = kept(left);
    // Another's call, another call, and the same user's with a token are not it.
    let mut shows = asking("{\"a\":1}", 1);
    shows.token = Some(("https://issuer.example", "mallory"));
    let mut certified = asking("{\"a\":1}", 1);
    certified.certificate = Some(("corp", "spiffe://corp.example/bot"));
    // Nor the same message to another place, or beside another session.
    let mut elsewhere = asking("{\"a\":1}", 1);
    elsewhere.beside = &[b"/mcp?tenant=2"];
    let mut session = asking("{\"a\":1}", 1);
    session.beside = &[b"/mcp", b"mcp-session-id", b"1"];
    // Nor equal arguments for another server, another tool or another host's process.
    let mut server = asking("{\"a\":1}", 1);
    server.server = "shop";
    let mut tool = asking("{\"a\":1}", 1);
    tool.tool = "refund";
    let mut host = asking("{\"a\":1}", 1);
    host.caller.workload = Some("agent".into());
    let mut named = asking("{\"a\":1}", 1);
    named.caller.user = Some("user2".into());
    let others = [asking("{\"a\":1}", 2), asking("{\"a\":2}", 1)];
    let others = others.into_iter().chain([shows, certified]);
    let others = others.chain([elsewhere, session, server, tool, host, named]);
    for other in others {
        assert_ne!(approvals.ask(other).unwrap().approval().id, id);
    }
    let reserved = approvals.reserve(&id, &user("bob", 3), &set()).unwrap();
    reserved.grant().await.unwrap();
    assert!(
        disk.lock().unwrap()[0].granted.is_some(),
        "it is on the disk"
    );
    let mut ticket = approvals.ask(asking("{\"a\":1}", 1)).unwrap();
    let anew = approvals.ask(asking("{\"a\":1}", 1)).unwrap();
    assert_eq!(ticket.approval().id, id);
    assert_ne!(anew.approval().id, id);
    assert!(matches!(ticket.wait().await, Word::Granted));
    let (used, _approved) = ticket.redeem(Admission::FREE).await.unwrap();
    assert_eq!(used.id, id);
}

/// A call that cannot go now, since a breaker is open, leaves its approval to the same call made again.
#[tokio::test]
async fn what_is_left_unused_is_taken_up_by_the_same_call_and_used_once() {
    let (approvals, _stopping, disk) = kept(Vec::new());
    let mut ticket = approvals.ask(asking("{}", 1)).unwrap();
    let id = ticket.approval().id.clone();
    let reserved = approvals.reserve(&id, &user("bob", 3), &set()).unwrap();
    reserved.grant().await.unwrap();
    assert!(matches!(ticket.wait().await, Word::Granted));
    assert_eq!(ticket.leave().granted.unwrap().user, "bob");
    let version = approvals.lock().version;
    approvals.kept(version).await.unwrap();
    assert!(disk.lock().unwrap()[0].granted.is_some());
    let other = approvals.ask(asking("{}", 2)).unwrap();
    assert_ne!(other.approval().id, id, "it is not another's");
    let mut ticket = approvals.ask(asking("{}", 1)).unwrap();
    assert_eq!(ticket.approval().id, id);
    assert!(matches!(ticket.wait().await, Word::Granted));
    let (used, _approved) = ticket.redeem(Admission::FREE).await.unwrap();
    assert_eq!(used.id, id);
    let anew = approvals.ask(asking("{}", 1)).unwrap();
    assert_ne!(anew.approval().id, id);
}

/// Who approved was not asked for what another rule asks by now.
#[tokio::test]
async fn what_is_left_waits_anew_where_other_rules_ask() {
    let (approvals, _stopping, _disk) = kept(Vec::new());
    let mut ticket = approvals.ask(asking("{}", 1)).unwrap();
    let id = ticket.approval().id.clone();
    let reserved = approvals.reserve(&id, &user("bob", 3), &set()).unwrap();
    reserved.grant().await.unwrap();
    assert!(matches!(ticket.wait().await, Word::Granted));
    assert!(ticket.leave().granted.is_some());
    let more = Asking {
        rules: vec!["ask".into(), "finance".into()],
        ..asking("{}", 1)
    };
    let anew = approvals.ask(more).unwrap();
    assert_ne!(anew.approval().id, id);
    assert_eq!(anew.approval().other_rules, ["finance"]);
    assert!(anew.approval().granted.is_none());
    let waiting = approvals.waiting(|_| true);
    assert_eq!(waiting.len(), 1, "the one before means nothing any more");
}

#[tokio::test]
async fn nothing_is_used_that_cannot_be_taken_from_the_disk() {
    let approvals = Approvals::new(Vec::new(), CancellationToken::new());
    let (keeper, mut keeping) = mpsc::channel::<KeepRequest>(1);
    tokio::spawn(Arc::clone(&approvals).keep(keeper));
    tokio::spawn(async move {
        while let Some(request) = keeping.recv().await {
            request.reply.send(Err("the disk is full".into())).unwrap();
        }
    });
    let mut ticket = approvals.ask(asking("{}", 1)).unwrap();
    let id = ticket.approval().id.clone();
    let reserved = approvals.reserve(&id, &user("bob", 3), &set()).unwrap();
    reserved.grant().await.unwrap();
    assert!(matches!(ticket.wait().await, Word::Granted));
    let failed = NotKept::Failed("the disk is full".into());
    assert_eq!(ticket.redeem(Admission::FREE).await.unwrap_err(), failed);
    // Nor is one granted for later.
    let left = Approvals::new(
        vec![Approval::for_tests("0123456789ab")],
        CancellationToken::new(),
    );
    let (keeper, mut keeping) = mpsc::channel::<KeepRequest>(1);
    tokio::spawn(Arc::clone(&left).keep(keeper));
    tokio::spawn(async move { drop(keeping.recv().await) });
    let reserved = left
        .reserve("0123456789ab", &user("bob", 3), &set())
        .unwrap();
    reserved.grant().await.unwrap_err();
    assert!(left.waiting(|_| true)[0].0.granted.is_none());
}

#[tokio::test]
async fn old_ones_are_forgotten_and_the_number_is_bounded() {
    let mut old = Approval::for_tests("0123456789ab");
    old.until = old.asked;
    let (approvals, _stopping, _disk) = kept(vec![old]);
    assert!(approvals.waiting(|_| true).is_empty());
    let mut late = asking("{}", 1);
    late.wait = Duration::ZERO;
    let mut late = approvals.ask(late).unwrap();
    // Also where its client reads nothing, so that nobody sees to its time.
    let id = late.approval().id.clone();
    let undecided = approvals.reserve(&id, &user("root", 0), &set());
    assert_eq!(undecided.unwrap_err(), Undecided::NotFound);
    assert!(approvals.waiting(|_| true).is_empty());
    assert!(matches!(late.wait().await, Word::TimedOut));
    assert_eq!(
        late.redeem(Admission::FREE).await.unwrap_err(),
        NotKept::Ended
    );
    let mut tickets = Vec::new();
    for uid in 0..8 {
        for _ in 0..OF_ONE {
            tickets.push(approvals.ask(asking("{}", uid)).unwrap());
        }
        let more = approvals.ask(asking("{}", uid)).unwrap_err();
        assert!(matches!(
            more,
            NotWaiting::TooManyOfCaller | NotWaiting::TooMany
        ));
    }
    assert_eq!(tickets.len(), MOST_APPROVALS);
    let more = approvals.ask(asking("{}", 99)).unwrap_err();
    assert_eq!(more, NotWaiting::TooMany);
}

#[tokio::test]
async fn the_names_of_rules_are_bounded_in_sum() {
    let (approvals, _stopping, _disk) = kept(Vec::new());
    let asked = |count: usize| {
        let rule = |number| format!("{number:0>61}").into();
        approvals.ask(Asking {
            rules: (0..=count).map(rule).collect(),
            ..asking("{}", 1)
        })
    };
    let most = OTHER_RULES / 64;
    let full = asked(most + 1).unwrap_err();
    assert_eq!(full, NotWaiting::TooMany);
    let ticket = asked(most).unwrap();
    assert_eq!(asked(1).unwrap_err(), NotWaiting::TooMany);
    drop(ticket);
    asked(1).unwrap();
}

#[tokio::test]
async fn who_is_known_by_a_name_of_the_caller_does_not_decide() {
    let (approvals, _stopping, _disk) = kept(Vec::new());
    let mut call = asking("{}", 1);
    call.shown.names = BTreeSet::from(["bob".to_owned()]);
    let ticket = approvals.ask(call).unwrap();
    let id = ticket.approval().id.clone();
    let told = approvals.reserve(&id, &user("bob", 3), &set());
    assert_eq!(told.unwrap_err(), Undecided::OwnCall);
    let told = approvals.reserve(&id, &user("root", 0), &set());
    told.unwrap().grant().await.unwrap();
}

#[test]
fn what_cannot_be_shown_does_not_wait() {
    let approvals = Approvals::new(Vec::new(), CancellationToken::new());
    let long = "x".repeat(2 * APPROVAL_NAME + 1);
    for tool in ["", "p\u{430}y", "pay\n", "a b", "\"pay\"", &long] {
        let asked = approvals.ask(Asking {
            tool,
            ..asking("{}", 1)
        });
        assert_eq!(asked.unwrap_err(), NotWaiting::Unshowable, "{tool:?}");
    }
}

/// The channel takes no body from the gate beside a packet.
#[test]
fn all_that_may_wait_fits_into_one_packet() {
    let name = "n".repeat(APPROVAL_NAME);
    let mut one = Approval::for_tests("0123456789ab");
    one.server.clone_from(&name);
    one.rule.clone_from(&name);
    one.tool = "t".repeat(2 * APPROVAL_NAME);
    one.record = "r".repeat(36);
    one.caller = ApprovalCaller {
        workload: Some(name.clone()),
        user: Some(name.clone()),
        uid: u32::MAX,
        token: Some("0123456789abcdef".into()),
        uids: vec![u32::MAX; USERS],
    };
    one.granted = Some(Granted {
        user: name,
        uid: u32::MAX,
        at: one.asked,
    });
    let mut waiting = vec![one; MOST_APPROVALS];
    // All that there is room for.
    let others = OTHER_RULES / (APPROVAL_NAME + 3);
    let name = "o".repeat(APPROVAL_NAME);
    for one in waiting.iter_mut().take(others) {
        one.other_rules = vec![name.clone()];
    }
    let message = ToSupervisor::Approvals {
        request: u64::MAX,
        waiting,
    };
    let length = serde_json::to_vec(&message).unwrap().len();
    assert!(length <= 64 << 10, "{length}");
}

#[tokio::test]
async fn a_call_is_put_before_each_person_once() {
    let (approvals, _stopping, _disk) = kept(vec![Approval::for_tests("0123456789ab")]);
    let mut asked = approvals.asked();
    let bob =
        |approval: &Approval, _: Option<&Shown>| may_approve(&set(), approval.rules(), 3, "bob");
    // What an earlier gate left is put before nobody: what it says is not known.
    assert!(approvals.put_before(0, bob).is_none());
    let ticket = approvals.ask(asking("{}", 1)).unwrap();
    asked.changed().await.unwrap();
    let id = ticket.approval().id.clone();
    assert!(approvals.put_before(0, |_, _| false).is_none());
    assert!(approvals.put_before(32, bob).is_none());
    assert_eq!(approvals.put_before(0, bob).unwrap().0.id, id);
    assert!(approvals.put_before(0, bob).is_none());
    assert_eq!(approvals.put_before(1, bob).unwrap().0.id, id);
    assert!(approvals.undecided(&id).is_some());
    let reserved = approvals.reserve(&id, &user("bob", 3), &set()).unwrap();
    assert!(approvals.undecided(&id).is_none());
    assert!(approvals.put_before(2, bob).is_none());
    reserved.grant().await.unwrap();
    assert!(approvals.undecided(&id).is_none());
    assert!(approvals.put_before(2, bob).is_none());
}

const TIERS: &str = "version: 1
servers: { bank: { url: 'https://bank.example/' } }
identities: { team: { user: [bob, carol] }, finance: { user: carol } }
rules:
  - { id: all, servers: [bank], tools: [pay], effect: allow }
  - { id: small, servers: [bank], tools: [pay], args: [{ field: /cents, above: 1000 }], effect: approve, approvers: [team], timeout: 5m }
  - { id: tried, servers: [bank], tools: [pay], effect: approve, timeout: 1m, mode: observe }
";
const LARGE: &str = "  - { id: large, servers: [bank], tools: [pay], args: [{ field: /cents, above: 100000 }], effect: approve, approvers: [finance], timeout: 2m }
";

fn tiers(text: &str) -> PolicySet {
    let source = Source {
        name: "p.yaml".into(),
        text: text.into(),
    };
    compile(&[source]).unwrap()
}

/// Has a call of so many cents judged, which waits if it needs an approval.
fn pay(
    decider: &Decider,
    cents: &str,
    approved: Option<Approved>,
) -> Result<Permit<Message>, Refused> {
    let arguments = parse(cents.as_bytes(), &Limits::REQUEST).unwrap();
    let message = McpMessage {
        server: "bank",
        method: "tools/call",
        name: Some("pay"),
        arguments: arguments.as_object(),
        hints: None,
        session: None,
        within: None,
        again: false,
    };
    decider.message(Caller::default(), message, approved)
}

/// What a person of this name says of the call that waits with `ticket`.
async fn approved_by(
    approvals: &Arc<Approvals>,
    mut ticket: Ticket,
    who: &Approver,
    set: &PolicySet,
) -> Result<Approved, Undecided> {
    let id = ticket.approval().id.clone();
    approvals.reserve(&id, who, set)?.grant().await.unwrap();
    assert!(matches!(ticket.wait().await, Word::Granted));
    Ok(ticket.redeem(Admission::FREE).await.unwrap().1)
}

/// Tiers in rising order: whoever approves for the first of the rules alone does not approve what another asks for, too.
#[tokio::test]
async fn who_approves_is_an_approver_of_every_rule_that_asks() {
    let (approvals, _stopping, _disk) = kept(Vec::new());
    let decider = Decider::new(tiers(&format!("{TIERS}{LARGE}")), 1);
    let set = tiers(&format!("{TIERS}{LARGE}"));
    let waits = |cents| {
        let refused = pay(&decider, cents, None).unwrap_err();
        let asks = refused.asks().unwrap().clone();
        let ticket = approvals.ask(Asking {
            rules: asks.rules,
            wait: asks.wait,
            ..asking(cents, 1)
        });
        (ticket.unwrap(), asks.wait)
    };
    let (bob, carol) = (user("bob", 3), user("carol", 4));
    // The first tier is the team's.
    let few = r#"{"cents":2000}"#;
    let (ticket, wait) = waits(few);
    assert_eq!(wait, Duration::from_mins(5));
    let approved = approved_by(&approvals, ticket, &bob, &set).await.unwrap();
    drop(pay(&decider, few, Some(approved)).unwrap());
    // The second needs somebody of both, in the shorter time.
    let many = r#"{"cents":200000}"#;
    let (ticket, wait) = waits(many);
    assert_eq!(wait, Duration::from_mins(2));
    assert!(ticket.approval().rules().eq(["small", "large"]));
    let refused = approved_by(&approvals, ticket, &bob, &set).await;
    assert_eq!(refused.unwrap_err(), Undecided::NotFound);
    for who in [&carol, &user("root", 0)] {
        let (ticket, _) = waits(many);
        let approved = approved_by(&approvals, ticket, who, &set).await.unwrap();
        drop(pay(&decider, many, Some(approved)).unwrap());
    }
}

/// What was approved before the policy asked for more does not pass.
#[tokio::test]
async fn an_approval_is_held_to_every_rule_that_asks_by_then() {
    let (approvals, _stopping, _disk) = kept(Vec::new());
    let before = tiers(TIERS);
    let decider = Decider::new(tiers(TIERS), 1);
    let many = r#"{"cents":200000}"#;
    let ask = || {
        let refused = pay(&decider, many, None).unwrap_err();
        let rules = refused.asks().unwrap().rules.clone();
        assert_eq!(rules, ["small".into()]);
        let asking = Asking {
            rules,
            ..asking(many, 1)
        };
        approvals.ask(asking).unwrap()
    };
    let (one, other) = (ask(), ask());
    decider.replace(tiers(&format!("{TIERS}{LARGE}")), 2);
    let approved = approved_by(&approvals, one, &user("bob", 3), &before).await;
    let refused = pay(&decider, many, Some(approved.unwrap())).unwrap_err();
    assert_eq!(refused.reason(), Reason::NeedsApproval);
    let approved = approved_by(&approvals, other, &user("carol", 4), &before).await;
    drop(pay(&decider, many, Some(approved.unwrap())).unwrap());
}
