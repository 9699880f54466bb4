//! What must hold for every text that is given as a policy; run by the fuzz target, and by tests over its corpus.

use crate::decide::{Action, Caller, Request, Target, evaluate};
use crate::fault::Source;
use crate::model::{Effect, Protocol};
use crate::name::Name;
use crate::set::compile;
use crate::time::Timestamp;

/// Nothing panics, every fault stands within the text and on one line, the same text is the same policy, and none opens
/// the network to a caller that nobody knows.
pub fn policy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let source = [Source {
        name: "p.yaml".to_owned(),
        text: text.to_owned(),
    }];
    let set = match compile(&source) {
        Ok(set) => set,
        Err(faults) => {
            assert!(!faults.is_empty(), "refused without a fault");
            let lines = text.split(['\n', '\r']).count();
            for fault in &faults {
                let line = usize::try_from(fault.line).unwrap_or(usize::MAX);
                assert!(line <= lines, "a fault beside the text");
                assert!(
                    !fault.to_string().contains('\n'),
                    "a fault of several lines"
                );
            }
            let again = compile(&source).err();
            assert!(again == Some(faults), "the same text, other faults");
            return;
        }
    };
    let again = compile(&source).map(|set| set.fingerprint().to_owned());
    assert!(
        again.as_deref() == Ok(set.fingerprint()),
        "the same text, another policy"
    );
    let now = Timestamp::from_seconds(1_795_219_200);
    drop(set.warnings(now));
    let Ok(name) = Name::parse("a.example") else {
        return;
    };
    let target = Target::Name(&name);
    let (port, protocol) = (443, Protocol::Tcp);
    let request = Request {
        caller: Caller::default(),
        action: Action::Connect {
            target,
            port,
            protocol,
        },
        now,
        counts: &[],
    };
    let verdict = evaluate(&set, &request);
    assert!(verdict.effect == Effect::Deny, "open to anybody");
}
