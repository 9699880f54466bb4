//! No secret reaches a file.

use serde_json::json;

use super::record::{Dns, Exec, Finding, Http, Identity, Mcp, Session, Tcp, Workload};
use super::*;

/// Put together here, so that no scanner takes this file for a leak.
fn secrets() -> Vec<String> {
    let letters = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8";
    [
        "ghp_",
        "glpat-",
        "sk-",
        "sk-ant-api03-",
        "xoxb-",
        "hf_",
        "npm_",
        "eyJhbGciOiJIUzI1NiJ9.eyJ",
    ]
    .iter()
    .map(|prefix| format!("{prefix}{letters}"))
    .chain([
        format!("AKIA{}", "A1B2C3D4E5F6G7H8"),
        format!("AIza{letters}"),
    ])
    .collect()
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "every field of a record, once")]
async fn no_secret_reaches_a_file_by_any_field() {
    let directory = tempfile::tempdir().unwrap();
    let (log, writer) = start(directory.path(), options());
    for secret in secrets() {
        let text = || Text::from(format!("before {secret}, after"));
        let some = || Some(text());
        let workload = Workload {
            name: text(),
            exe: some(),
            ..Workload::default()
        };
        let args = format!("--url=https://me:{secret}@host/");
        let workload = Workload {
            args: mask::command(["--token", &secret, &args]),
            ..workload
        };
        let identity = Identity {
            name: text(),
            subject: some(),
            ..Identity::default()
        };
        let session = Session {
            id: text(),
            client: some(),
            ..Session::default()
        };
        let start = Start {
            workload: Some(workload.into()),
            identity: Some(identity.into()),
            session: Some(session.into()),
            ..Start::default()
        };
        let mut open = log.open(Kind::Mcp, start).await.unwrap();
        let mut record = open.record_mut();
        let arguments = json!({"note": format!("use {secret}!"), "list": [{ secret.clone(): 1 }]});
        let (arguments, _) = mask::arguments::<&str>(&arguments, &[]);
        record.mcp = Some(Mcp {
            method: text(),
            arguments: Some(arguments),
            ..Mcp::default()
        });
        let encoded = secret.replace('_', "%5F").replace('-', "%252D");
        record.http = Some(Http {
            path: Some(Text::path(&format!(
                "/{secret}/{encoded}?q={secret}&r={encoded}#{secret}"
            ))),
            ..Http::default()
        });
        record.tcp = Some(Tcp {
            name: some(),
            ..Tcp::default()
        });
        record.dns = Some(Dns {
            name: text(),
            answers: vec![text()],
            ..Dns::default()
        });
        record.exec = Some(Exec {
            args: mask::command([&*secret]),
            ..Exec::default()
        });
        record.finding = Some(Finding {
            what: text(),
            detail: some(),
            count: None,
        });
        drop(record);
        let error = std::io::Error::other(format!("dial https://x:{secret}@host: {secret}"));
        drop(open.close(Outcome {
            error: Some(Text::error(&error)),
            ..Outcome::done()
        }));
    }
    assert_eq!(writer.finish(LIMIT).await, Finished::Complete);
    let bytes = files(directory.path())
        .into_values()
        .collect::<Vec<_>>()
        .concat();
    let written = String::from_utf8(bytes).unwrap();
    for secret in secrets() {
        // Neither the whole nor its telling part, however it was encoded.
        assert!(!written.contains(&secret), "{secret}");
    }
    assert!(
        !written.contains("a1B2c3") && !written.contains("A1B2C3"),
        "{written}"
    );
    assert!(written.contains("before [masked], after"));
    verify(directory.path()).unwrap();
}
