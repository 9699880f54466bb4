//! Calls that are run dry: told to do nothing by an argument of their tool, where the register names one.

use exeat_policy::{DryRun, Scalar};

use super::permit::{Judged, Message, Permit, Refused};
use crate::decode::json::{Limits, Object, Value, parse};
use crate::decode::rpc::{Message as Sent, confusable};

/// What becomes of a call that is to be run dry.
#[derive(Debug)]
pub enum Rehearsal {
    /// It now carries the argument by which its tool does nothing, and may pass.
    Told(Box<Permit<Message>>),
    /// Its tool has no such argument: nothing of it may leave.
    Untold(Refused),
    /// Its arguments leave no place for that argument, or hold one that a server may take for it.
    NoPlace(Refused),
}

impl Refused {
    /// Has `message`, which this refused, carry the argument by which its tool does nothing. `message` is changed only
    /// where it may pass.
    pub fn rehearse(self, message: &mut Sent) -> Rehearsal {
        let Some(dry_run) = self.judged.dry_run.clone() else {
            return Rehearsal::Untold(self);
        };
        let Some(params) = message.params_mut() else {
            return Rehearsal::NoPlace(self);
        };
        let told = match params.get("arguments") {
            None => Some(Object::new()),
            Some(arguments) => arguments.as_object().cloned(),
        }
        .and_then(|arguments| told(arguments, &dry_run));
        let Some(told) = told else {
            return Rehearsal::NoPlace(self);
        };
        params.insert("arguments", told);
        Rehearsal::Told(Box::new(Permit::new(*self.judged)))
    }
}

impl Permit<Message> {
    /// The argument that the call was made to carry.
    pub fn dry_run(&self) -> Option<&DryRun> {
        let Judged { dry_run, .. } = &self.judged;
        dry_run.as_deref()
    }
}

/// `arguments` with the argument; `None` where it has no place.
fn told(mut arguments: Object, dry_run: &DryRun) -> Option<Object> {
    let keys: Vec<&str> = dry_run.argument.keys().collect();
    let (last, through) = keys.split_last()?;
    let mut place = &mut arguments;
    for key in through {
        distinct(place, key)?;
        if place.get(key).is_none() {
            place.insert((*key).to_owned(), Object::new());
        }
        place = place.get_mut(key)?.as_object_mut()?;
    }
    distinct(place, last)?;
    place.insert((*last).to_owned(), value(&dry_run.value)?);
    Some(arguments)
}

/// Whether no other member than `key` may be read as `key`: some servers do not tell case apart, and take the last.
fn distinct(place: &Object, key: &str) -> Option<()> {
    let other = |name: &str| name != key && confusable(name, &[key]);
    (!place.keys().any(other)).then_some(())
}

/// `None`: a number beyond what a message may hold.
fn value(scalar: &Scalar) -> Option<Value> {
    Some(match scalar {
        Scalar::Null => Value::Null,
        Scalar::Bool(truth) => Value::Bool(*truth),
        Scalar::Number(text) => parse(text.as_bytes(), &Limits::REQUEST).ok()?,
        Scalar::Text(text) => Value::from(&**text),
    })
}

#[cfg(test)]
mod tests {
    use exeat_policy::{Caller, Source, compile};

    use super::*;
    use crate::decide::{Decider, McpMessage};
    use crate::decode::rpc::parse_single;

    /// The call of a tool that is to be run dry by `/options/dryRun`: what becomes of it, and of its arguments.
    fn rehearse(arguments: &str) -> (&'static str, String) {
        let text = "version: 1
servers:
  bank:
    url: 'https://bank.example/'
    tools: { pay: { class: write, dry_run: { argument: /options/dryRun, value: true } } }
rules: [{ id: dry, servers: [bank], tools: [pay], effect: dry_run }]
";
        let source = Source {
            name: "p.yaml".into(),
            text: text.into(),
        };
        let decider = Decider::new(compile(&[source]).unwrap(), 1);
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"pay"{arguments}}}}}"#
        );
        let mut message = parse_single(text.as_bytes(), &Limits::REQUEST).unwrap();
        let asked = McpMessage {
            server: "bank",
            method: "tools/call",
            name: Some("pay"),
            arguments: None,
            hints: None,
            session: None,
            within: None,
            again: false,
        };
        let refused = decider.message(Caller::default(), asked, None).unwrap_err();
        let before = message.encode();
        let what = match refused.rehearse(&mut message) {
            Rehearsal::Told(permit) => {
                assert_eq!(
                    permit.dry_run().unwrap().argument.to_string(),
                    "/options/dryRun"
                );
                "told"
            }
            Rehearsal::Untold(_) => "untold",
            Rehearsal::NoPlace(_) => "no place",
        };
        if what != "told" {
            assert_eq!(
                message.encode(),
                before,
                "what does not pass is not changed"
            );
        }
        let arguments = message.params().and_then(|params| params.get("arguments"));
        (what, arguments.map(Value::to_text).unwrap_or_default())
    }

    #[test]
    fn the_argument_is_set_whatever_was_asked_for() {
        for (given, told) in [
            ("", r#"{"options":{"dryRun":true}}"#),
            (
                r#","arguments":{"a":1}"#,
                r#"{"a":1,"options":{"dryRun":true}}"#,
            ),
            (
                r#","arguments":{"options":{"dryRun":false,"x":2},"a":1}"#,
                r#"{"options":{"dryRun":true,"x":2},"a":1}"#,
            ),
        ] {
            assert_eq!(rehearse(given), ("told", told.to_owned()), "{given}");
        }
    }

    #[test]
    fn what_a_server_may_read_instead_of_it_is_refused() {
        for given in [
            r#","arguments":{"options":{"DRYRUN":false}}"#,
            r#","arguments":{"options":{"dryrun":false,"dryRun":true}}"#,
            r#","arguments":{"Options":{}}"#,
            r#","arguments":{"options":1}"#,
            r#","arguments":{"options":[]}"#,
        ] {
            assert_eq!(rehearse(given).0, "no place", "{given}");
        }
    }
}
