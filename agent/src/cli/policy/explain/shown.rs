//! What options state: a token, a certificate, hints of a tool.

use std::path::Path;

use serde_json::{Map, Value};

use super::super::files;
use super::usage;
use crate::cli::args::ExplainArguments;
use crate::cli::error::CliError;
use crate::control::command::{Arguments, StatedCertificate, StatedToken};
use crate::control::reply::ListedTool;
use crate::decode::json::{self, Limits};

/// The token; without an option that is about one, none.
pub(super) fn token(asked: &ExplainArguments) -> Result<Option<StatedToken>, CliError> {
    let (mut issuer, mut subject) = (asked.issuer.clone(), asked.subject.clone());
    let claims = match &asked.token_claims {
        Some(file) => {
            let (text, iss, sub) = file_of(file)?;
            issuer = issuer.or(iss);
            subject = subject.or(sub);
            Some(text)
        }
        None => listed(&asked.claim)?,
    };
    match issuer {
        Some(issuer) => Ok(Some(StatedToken {
            issuer,
            subject,
            claims: claims.map(Arguments),
        })),
        None if subject.is_some() || claims.is_some() => {
            Err(usage("give `--issuer`: whose token is it?"))
        }
        None => Ok(None),
    }
}

/// The text of the claims, and their `iss` and `sub`. Numbers keep their digits.
fn file_of(file: &Path) -> Result<(String, Option<String>, Option<String>), CliError> {
    let text = files::source(file)?.text;
    let wrong = |why: &str| usage(&format!("read `{}` as claims: {why}", file.display()));
    let claims = json::parse(text.as_bytes(), &Limits::REQUEST)
        .map_err(|error| wrong(&error.to_string()))?;
    let claims = claims.as_object().ok_or_else(|| wrong("no JSON object"))?;
    let claim = |name: &str| {
        let value = claims.get(name).and_then(json::Value::as_str);
        value.map(str::to_owned)
    };
    Ok((text, claim("iss"), claim("sub")))
}

/// `NAME=VALUE` as a JSON object; a name that is given twice has a list.
fn listed(given: &[String]) -> Result<Option<String>, CliError> {
    let mut claims = Map::new();
    for claim in given {
        let Some((name, value)) = claim.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(usage(&format!(
                "read `{claim}` as a claim: write `NAME=VALUE`"
            )));
        };
        let value = Value::from(value);
        match claims.get_mut(name) {
            None => drop(claims.insert(name.to_owned(), value)),
            Some(Value::Array(values)) => values.push(value),
            Some(one) => *one = Value::from(vec![one.take(), value]),
        }
    }
    Ok((!claims.is_empty()).then(|| Value::from(claims).to_string()))
}

/// `NAME=BOOL` as what a server lists of a tool.
pub(super) fn hints(given: &[String]) -> Result<Option<ListedTool>, CliError> {
    let mut hints = ListedTool::default();
    for hint in given {
        let wrong = || {
            usage(&format!(
                "read `{hint}` as a hint: write `readOnlyHint=true`, or `destructiveHint`, or `openWorldHint`"
            ))
        };
        let (name, value) = hint.split_once('=').ok_or_else(wrong)?;
        let value = value.parse().map_err(|_unread| wrong())?;
        let named = hints.named(name).ok_or_else(wrong)?;
        *named = Some(value);
    }
    Ok((!given.is_empty()).then_some(hints))
}

/// The certificate; without `--authority` none, and no name of one.
pub(super) fn certificate(asked: &ExplainArguments) -> Option<StatedCertificate> {
    Some(StatedCertificate {
        authority: asked.authority.clone()?,
        uri: asked.uri.clone(),
        dns: asked.dns.clone(),
        email: asked.email.clone(),
        common_name: asked.common_name.clone(),
    })
}
