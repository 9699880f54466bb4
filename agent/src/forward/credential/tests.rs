//! What the client sent in a secret's place is gone, and what cannot be had is a fault.

use exeat_policy::{Source, compile};

use super::*;

const SECRET: &str = "s3cr3t/of+it";

fn set(placement: &str) -> PolicySet {
    let text = format!(
        "version: 1\ncredentials: {{ x: {{ file: /x, hosts: [a.example] {placement} }} }}\n"
    );
    let name = "p.yaml".to_owned();
    compile(&[Source { name, text }]).unwrap()
}

async fn sent(placement: &str, uri: &str, headers: &[(&str, &str)]) -> Request<()> {
    let set = set(placement);
    let definition = set.credential("x").unwrap();
    let credentials = Credentials::default();
    credentials.learn(definition, Ok(Secret::new(SECRET.to_owned())));
    let mut request = Request::builder().uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(()).unwrap();
    let due = credentials.due(definition, true).await.unwrap();
    assert_eq!(due.name(), "x");
    due.put(&mut request, None).unwrap();
    assert!(
        !format!("{request:?} {credentials:?}").contains(SECRET) || placement.contains("query")
    );
    request
}

#[tokio::test]
async fn what_the_client_sent_there_is_gone() {
    let own = [
        ("authorization", "Bearer own"),
        ("Authorization", "Basic own"),
        ("x-api-key", "own"),
        ("x_api_key", "own"),
        ("x-other", "own"),
    ];
    let all = |request: &Request<()>, name: &str| -> Vec<String> {
        let values = request.headers().get_all(name).iter();
        values
            .map(|value| value.to_str().unwrap().to_owned())
            .collect()
    };
    let request = sent("", "/", &own).await;
    assert_eq!(all(&request, "authorization"), ["Bearer s3cr3t/of+it"]);
    // Nor what it logs in with elsewhere.
    for own in ["x-api-key", "x_api_key"] {
        assert_eq!(all(&request, own), <[&str; 0]>::default());
    }
    let request = sent(", header: X-Api-Key, prefix: 'k '", "/", &own).await;
    assert_eq!(all(&request, "x-api-key"), ["k s3cr3t/of+it"]);
    assert_eq!(all(&request, "x_api_key"), <[&str; 0]>::default());
    assert_eq!(all(&request, "authorization"), <[&str; 0]>::default());
    assert_eq!(all(&request, "x-other"), ["own"]);
    let request = sent(", basic: me", "/", &own).await;
    assert_eq!(
        all(&request, "authorization"),
        ["Basic bWU6czNjcjN0L29mK2l0"]
    );
    let request = sent("", "/p?access_token=own&a=1", &own).await;
    assert_eq!(request.uri().to_string(), "/p?a=1");
}

#[tokio::test]
async fn a_parameter_replaces_all_that_may_be_read_as_it() {
    let secret = "key=s3cr3t%2Fof%2Bit";
    for (given, left) in [
        ("/p", "/p?"),
        ("/p?", "/p?"),
        ("/p?a=1", "/p?a=1&"),
        ("/p?key=own", "/p?"),
        ("/p?a=1&key=own&b=2", "/p?a=1&b=2&"),
        ("/p?a=1;key=own;b=2", "/p?a=1;b=2&"),
        ("/p?KEY=own&%6bey=own&ke%59=own&key", "/p?"),
        ("/p?+key=own&keys=2", "/p?keys=2&"),
        ("/p?a=key", "/p?a=key&"),
        ("https://a.example/p?key=own", "https://a.example/p?"),
    ] {
        let request = sent(", query: key", given, &[]).await;
        assert_eq!(
            request.uri().to_string(),
            format!("{left}{secret}"),
            "{given}"
        );
    }
}

#[tokio::test]
async fn what_cannot_be_had_is_a_fault() {
    let set = set("");
    let definition = set.credential("x").unwrap();
    let credentials = Credentials {
        wait: Duration::from_millis(10),
        ..Credentials::default()
    };
    let secret = || Secret::new(SECRET.to_owned());
    let late = credentials.due(definition, true).await.unwrap_err();
    assert!(matches!(late, CredentialFault::Late { .. }), "{late}");
    credentials.learn(definition, Ok(secret()));
    let clear = credentials.due(definition, false).await.unwrap_err();
    assert!(matches!(clear, CredentialFault::Clear { .. }), "{clear}");
    credentials.learn(definition, Err("its file is gone".to_owned()));
    let told = credentials.due(definition, true).await.unwrap_err();
    assert!(told.to_string().ends_with("its file is gone"), "{told}");
    // Defined anew: what was read before is not what is meant now.
    credentials.learn(definition, Ok(secret()));
    let other = self::set(", header: X-Key");
    credentials.keep(&other);
    assert_eq!(credentials.standing(&other)[0].read, None);
    let late = credentials.due(definition, true).await.unwrap_err();
    assert!(matches!(late, CredentialFault::Late { .. }), "{late}");
    credentials.learn(other.credential("x").unwrap(), Ok(secret()));
    let late = credentials.due(definition, true).await.unwrap_err();
    assert!(matches!(late, CredentialFault::Late { .. }), "{late}");
}
