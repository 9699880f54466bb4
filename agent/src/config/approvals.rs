//! `approvals`: how calls that wait for a person reach one, and how the answer comes back.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use exeat_policy::Name;
use exeat_policy::yaml::{Fields, Keys, Node, Reader};
use serde::{Deserialize, Serialize};

use super::read::{keys, list, path};
use super::url::HttpsUrl;

/// The most webhooks: the gate counts them by bits.
const MOST: usize = 32;
/// Bytes of an account's name, as in an approval.
const NAME: usize = crate::channel::APPROVAL_NAME;

const APPROVALS: Keys = keys(
    "`approvals`",
    &["listen", "console_url", "secret_file", "webhooks"],
);
const WEBHOOK: Keys = keys("a webhook", &["approver", "url", "url_file", "private"]);

/// How calls that wait for a person reach one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approvals {
    /// Where links are answered, on loopback; absent: not by the daemon.
    pub listen: Option<SocketAddr>,
    /// What links begin with.
    pub console_url: ConsoleUrl,
    /// File with the key that links are signed with; read by the supervisor alone.
    pub secret_file: PathBuf,
    /// Where messages go; never empty.
    pub webhooks: Vec<Webhook>,
}

/// Where messages to one approver go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// The Unix user as who the links in them decide.
    pub approver: String,
    /// Where to.
    pub url: WebhookUrl,
    /// Whether that host may have private addresses.
    pub private: bool,
}

/// A webhook's URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebhookUrl {
    /// It is no secret.
    Plain(HttpsUrl),
    /// On the first line of this file, read by the supervisor alone: whoever knows it can write to the channel.
    File(PathBuf),
}

/// What links begin with: `https://HOST[:PORT]`, or `http://ADDRESS:PORT` of this machine's loopback.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ConsoleUrl {
    text: String,
    name: Option<(Name, u16)>,
}

impl ConsoleUrl {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.strip_suffix('/').unwrap_or(text);
        if let Some(address) = text.strip_prefix("http://") {
            let address: SocketAddr = address
                .parse()
                .map_err(|_other| "in clear text it is an address of loopback with a port")?;
            if !address.ip().is_loopback() || text != format!("http://{address}") {
                return Err("in clear text it is an address of loopback with a port");
            }
            return Ok(Self {
                text: text.to_owned(),
                name: None,
            });
        }
        let url =
            HttpsUrl::parse(text).map_err(|_fault| "it is no `https` URL of a host by name")?;
        let origin = format!("https://{}", url.authority());
        if !text.eq_ignore_ascii_case(&origin) {
            return Err("it has more than a host and a port");
        }
        Ok(Self {
            text: origin,
            name: Some((url.host().clone(), url.port())),
        })
    }

    /// The host and port, where it is a host by name.
    pub fn name(&self) -> Option<&(Name, u16)> {
        self.name.as_ref()
    }
}

impl fmt::Display for ConsoleUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ConsoleUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for ConsoleUrl {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        Self::parse(&text)
    }
}

impl From<ConsoleUrl> for String {
    fn from(url: ConsoleUrl) -> Self {
        url.text
    }
}

pub(super) fn approvals(reader: &mut Reader, fields: Fields<'_>) -> Option<Approvals> {
    let fields = reader.fields(fields.get("approvals")?, &APPROVALS)?;
    let listen = match fields.get("listen") {
        Some(node) => Some(reader.parsed(node, "`127.0.0.1:PORT` or `[::1]:PORT`", listen)?),
        None => None,
    };
    let console_url = reader
        .required(fields, "console_url", APPROVALS.what)
        .and_then(|node| reader.parsed(node, "the URL that links begin with", ConsoleUrl::parse));
    let secret_file = reader
        .required(fields, "secret_file", APPROVALS.what)
        .and_then(|node| path(reader, node));
    let webhooks = webhooks(reader, fields);
    Some(Approvals {
        listen,
        console_url: console_url?,
        secret_file: secret_file?,
        webhooks: webhooks?,
    })
}

fn listen(text: &str) -> Result<SocketAddr, &'static str> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_other| "it is no address with a port")?;
    if address.ip().is_loopback() && address.port() != 0 {
        Ok(address)
    } else {
        Err(
            "it is not on loopback, or has no port: what is to be reached from elsewhere stands behind a proxy that speaks TLS",
        )
    }
}

fn webhooks(reader: &mut Reader, fields: Fields<'_>) -> Option<Vec<Webhook>> {
    let node = reader.required(fields, "webhooks", APPROVALS.what)?;
    let webhooks = list(reader, fields, "webhooks", "webhooks", webhook)?;
    if webhooks.is_empty() || webhooks.len() > MOST {
        reader.expected(node, "between one and 32 webhooks");
        return None;
    }
    Some(webhooks)
}

fn webhook(reader: &mut Reader, node: &Node) -> Option<Webhook> {
    let fields = reader.fields(node, &WEBHOOK)?;
    let approver = reader
        .required(fields, "approver", WEBHOOK.what)
        .and_then(|node| reader.parsed(node, "the Unix user who decides", account));
    let url = match (fields.get("url"), fields.get("url_file")) {
        (Some(node), None) => reader
            .parsed(node, "an `https` URL", HttpsUrl::parse)
            .map(WebhookUrl::Plain),
        (None, Some(node)) => path(reader, node).map(WebhookUrl::File),
        (Some(_), Some(_)) | (None, None) => {
            reader.expected(node, "either `url` or `url_file`");
            None
        }
    };
    let private = fields
        .get("private")
        .map_or(Some(false), |node| reader.flag(node));
    Some(Webhook {
        approver: approver?,
        url: url?,
        private: private?,
    })
}

/// A name that stands in a link as it is.
fn account(text: &str) -> Result<String, &'static str> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.@".contains(&byte);
    let begins = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    if text == "root" {
        Err("no link decides as root")
    } else if begins && text.len() <= NAME && text.bytes().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("letters, digits, `_`, `-`, `.` and `@` make one of at most 64 bytes")
    }
}

#[cfg(test)]
mod tests {
    use exeat_policy::Source;

    use super::*;
    use crate::config::parse;

    fn read(text: &str) -> Result<Option<Approvals>, String> {
        let source = Source {
            name: "exeat.yaml".into(),
            text: format!("version: 1\n{text}\n"),
        };
        let config = parse(&source).map_err(|faults| {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            faults.join("\n")
        });
        config.map(|config| config.approvals)
    }

    const GOOD: &str = "approvals: { listen: '127.0.0.1:8377', console_url: 'https://Exeat.example/', secret_file: /k, webhooks: [{ approver: dana, url: 'https://hooks.example/x' }] }";

    #[test]
    fn approvals_are_read() {
        let read = read(GOOD).unwrap().unwrap();
        assert_eq!(read.listen, Some("127.0.0.1:8377".parse().unwrap()));
        assert_eq!(read.console_url.to_string(), "https://exeat.example");
        assert_eq!(read.console_url.name().unwrap().1, 443);
        assert_eq!(read.webhooks[0].approver, "dana");
        let text = serde_json::to_string(&read).unwrap();
        assert_eq!(serde_json::from_str::<Approvals>(&text).unwrap(), read);
    }

    #[test]
    fn what_would_be_open_or_read_in_two_ways_is_refused() {
        for (from, to, why) in [
            ("127.0.0.1:8377", "0.0.0.0:8377", "not on loopback"),
            ("127.0.0.1:8377", "192.0.2.1:8377", "not on loopback"),
            ("127.0.0.1:8377", "127.0.0.1:0", "has no port"),
            (
                "https://Exeat.example/",
                "http://exeat.example",
                "clear text",
            ),
            (
                "https://Exeat.example/",
                "http://192.0.2.1:80",
                "clear text",
            ),
            (
                "https://Exeat.example/",
                "https://exeat.example/a",
                "more than",
            ),
            (
                "https://Exeat.example/",
                "https://u@exeat.example",
                "no `https`",
            ),
            ("dana", "root", "as root"),
            ("dana", "'0'", "letters"),
            ("dana", "../x", "letters"),
            ("dana", "a/b", "letters"),
            ("https://hooks", "http://hooks", "https"),
            ("url: ", "url_file: /u, url: ", "either `url` or `url_file`"),
            ("secret_file: /k, ", "", "secret_file"),
            ("console_url: 'https://Exeat.example/', ", "", "console_url"),
            (
                "[{ approver: dana, url: 'https://hooks.example/x' }]",
                "[]",
                "between one",
            ),
        ] {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD);
            let fault = read(&text).unwrap_err();
            assert!(fault.contains(why), "{text}: {fault}");
        }
        let here = GOOD.replace("https://Exeat.example/", "http://127.0.0.1:8377");
        let read = read(&here).unwrap().unwrap();
        assert_eq!(read.console_url.to_string(), "http://127.0.0.1:8377");
    }
}
