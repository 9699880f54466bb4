//! Keys of AWS, as programs print them for `credential_process` of AWS's own tools.

use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;
use thiserror::Error;

use crate::channel::Secret;
use crate::telemetry::clock::Timestamp;

/// The version of the form that there is.
const VERSION: u32 = 1;
/// Longest name of a key and longest key, in characters: AWS's have 16 to 128, and 40.
const MOST: usize = 256;

/// What signs requests to AWS.
#[derive(Clone)]
pub struct AwsKeys {
    /// The key's name, which each signature tells.
    pub id: String,
    /// The key itself, which is never sent.
    pub secret: Secret,
    /// What is sent beside the signature, where the keys are temporary.
    pub session: Option<Secret>,
    /// When they end, where they do.
    pub ends: Option<Timestamp>,
}

impl fmt::Debug for AwsKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsKeys").finish_non_exhaustive()
    }
}

/// Why a text tells no keys. Never says what it told instead.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum AwsKeysFault {
    /// Another text, or members that the form does not have or has once.
    #[error("not the JSON of `credential_process` at line {line}, column {column}")]
    Form {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// Another version of the form.
    #[error("`Version` is not {VERSION}")]
    Version,
    /// No name of a key.
    #[error("`AccessKeyId` is not 1 to {MOST} letters, digits and any of `-._`")]
    Id,
    /// No key.
    #[error("`SecretAccessKey` is not 1 to {MOST} printable characters without blanks")]
    Secret,
    /// No session's token.
    #[error("`SessionToken` is not printable characters without blanks")]
    Session,
    /// No time.
    #[error("`Expiration` is not a time as RFC 3339 writes it")]
    Ends,
}

/// The form, of which AWS's documentation ("Source credentials with an external process") names all members but the
/// account, which its libraries read.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Printed {
    version: u32,
    access_key_id: String,
    secret_access_key: Secret,
    session_token: Option<Secret>,
    expiration: Option<String>,
    #[serde(rename = "AccountId")]
    _account: Option<IgnoredAny>,
}

impl AwsKeys {
    /// Reads `text`. An empty `SessionToken` is none, as AWS's tools have it.
    ///
    /// # Errors
    /// An [`AwsKeysFault`].
    pub fn parse(text: &str) -> Result<Self, AwsKeysFault> {
        if !text.trim_start().starts_with('{') {
            // Libraries would take a list for the members in their order.
            return Err(AwsKeysFault::Form { line: 1, column: 1 });
        }
        // What the library says may repeat what it read.
        let printed: Printed = serde_json::from_str(text).map_err(|error| AwsKeysFault::Form {
            line: error.line(),
            column: error.column(),
        })?;
        if printed.version != VERSION {
            return Err(AwsKeysFault::Version);
        }
        let id = printed.access_key_id;
        let named = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if !(1..=MOST).contains(&id.len()) || !id.bytes().all(named) {
            return Err(AwsKeysFault::Id);
        }
        let secret = printed.secret_access_key;
        if secret.expose().len() > MOST || !is_plain(&secret) {
            return Err(AwsKeysFault::Secret);
        }
        let session = printed.session_token;
        let session = session.filter(|session| !session.expose().is_empty());
        if session.as_ref().is_some_and(|session| !is_plain(session)) {
            return Err(AwsKeysFault::Session);
        }
        let ends = printed.expiration.map(|text| text.parse());
        let ends = ends.transpose().map_err(|_unread| AwsKeysFault::Ends)?;
        Ok(Self {
            id,
            secret,
            session,
            ends,
        })
    }
}

/// Whether a header can carry it as it is.
fn is_plain(secret: &Secret) -> bool {
    let text = secret.expose();
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const ID: &str = "AKIDEXAMPLE";
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    const SESSION: &str = "IQoJb3JpZ2luX2VjE/x+y==";

    fn printed() -> Value {
        json!({
            "Version": 1,
            "AccessKeyId": ID,
            "SecretAccessKey": SECRET,
            "SessionToken": SESSION,
            "Expiration": "2030-01-02T03:04:05Z",
        })
    }

    #[test]
    fn what_tools_print_is_read() {
        let text = serde_json::to_string_pretty(&printed()).unwrap();
        let keys = AwsKeys::parse(&format!("\n{text}\n")).unwrap();
        assert_eq!((&*keys.id, keys.secret.expose()), (ID, SECRET));
        assert_eq!(keys.session.unwrap().expose(), SESSION);
        let ends = keys.ends.unwrap().to_string();
        assert_eq!(ends, "2030-01-02T03:04:05.000000Z");
        // What lasts, and what else tools print of it.
        for (session, ends) in [("null", "null"), ("\"\"", "null")] {
            let text = format!(
                r#"{{"Version":1,"AccessKeyId":"{ID}","SecretAccessKey":"{SECRET}","SessionToken":{session},
                "Expiration":{ends},"AccountId":"123456789012"}}"#
            );
            let keys = AwsKeys::parse(&text).unwrap();
            assert!(keys.session.is_none() && keys.ends.is_none());
        }
        let mut elsewhere = printed();
        elsewhere["Expiration"] = json!("2030-01-02T05:04:05.25+02:00");
        let keys = AwsKeys::parse(&elsewhere.to_string()).unwrap();
        let ends = keys.ends.unwrap().to_string();
        assert_eq!(ends, "2030-01-02T03:04:05.250000Z");
    }

    #[test]
    fn what_is_none_is_a_fault_that_tells_nothing() {
        let with = |name: &str, value: Value| {
            let mut printed = printed();
            printed[name] = value;
            printed.to_string()
        };
        let without = |name: &str| {
            let mut printed = printed();
            printed.as_object_mut().unwrap().remove(name);
            printed.to_string()
        };
        let twice = printed().to_string().replacen('{', r#"{"Version":1,"#, 1);
        for (text, holds) in [
            (SECRET.to_owned(), "line 1, column 1"),
            (format!(r#"[1,"{ID}","{SECRET}",null,null,null]"#), "JSON"),
            (format!("{}x", printed()), "JSON"),
            (twice, "JSON"),
            (with("Sessiontoken", json!(SESSION)), "JSON"),
            (with("Version", json!(SECRET)), "JSON"),
            (with("SecretAccessKey", json!([SECRET])), "JSON"),
            (without("AccessKeyId"), "JSON"),
            (without("SecretAccessKey"), "JSON"),
            (without("Version"), "JSON"),
            (with("Version", json!(2)), "Version"),
            (with("AccessKeyId", json!("")), "AccessKeyId"),
            (with("AccessKeyId", json!(SECRET)), "AccessKeyId"),
            (with("AccessKeyId", json!("a\r\nb")), "AccessKeyId"),
            (
                with("AccessKeyId", json!("a".repeat(MOST + 1))),
                "AccessKeyId",
            ),
            (with("SecretAccessKey", json!("")), "SecretAccessKey"),
            (with("SecretAccessKey", json!("a b")), "SecretAccessKey"),
            (with("SessionToken", json!("a\nb")), "SessionToken"),
            (with("SessionToken", json!("\u{e4}")), "SessionToken"),
            (with("Expiration", json!("")), "Expiration"),
            (with("Expiration", json!("tomorrow")), "Expiration"),
            (
                with("Expiration", json!("2030-01-02T03:04:05")),
                "Expiration",
            ),
        ] {
            let fault = AwsKeys::parse(&text).unwrap_err();
            let told = format!("{fault} {fault:?}");
            assert!(told.contains(holds), "{text}: {told}");
            for secret in [ID, SECRET, SESSION] {
                assert!(!told.contains(secret), "{told}");
            }
        }
        assert_eq!(
            format!("{:?}", AwsKeys::parse(&printed().to_string()).unwrap()),
            "AwsKeys { .. }"
        );
    }

    proptest! {
        /// Whatever is read fits into a header, and reads alike written anew.
        #[test]
        fn what_is_read_can_be_sent(
            id in ".{0,20}",
            secret in ".{0,20}",
            session in proptest::option::of(".{0,20}"),
            ends in proptest::option::of("20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:00:00(Z|[+-]0[0-9]:00|)"),
        ) {
            let text = json!({
                "Version": 1, "AccessKeyId": id, "SecretAccessKey": secret, "SessionToken": session, "Expiration": ends,
            });
            if let Ok(keys) = AwsKeys::parse(&text.to_string()) {
                prop_assert!(!keys.id.contains(['/', ',', ' ', '\n']));
                prop_assert_eq!(keys.secret.expose(), secret);
                prop_assert_eq!(keys.session.map(|own| own.expose().to_owned()).unwrap_or_default(), session.unwrap_or_default());
                prop_assert_eq!(keys.ends.is_some(), ends.is_some());
            }
        }

        #[test]
        fn nothing_is_told_of_what_is_not_read(text in ".{4,200}") {
            if let Err(fault) = AwsKeys::parse(&text) {
                prop_assert!(!fault.to_string().contains(&text));
            }
        }
    }
}
