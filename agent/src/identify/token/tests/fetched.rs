//! Keys that are fetched: rotation, age, and who may make the gate ask for them.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::task::JoinSet;

use super::*;
use crate::config::HttpsUrl;
use crate::identify::token::Supply;

/// An issuer whose keys are fetched.
fn fetching(refresh: Duration, max_age: Duration) -> (Arc<Tokens>, Arc<Supply>) {
    let issuer = Issuer {
        jwks: KeySource::Url(HttpsUrl::parse("https://a.example/keys").unwrap()),
        refresh,
        max_age,
        ..issuer(A)
    };
    let tokens = Tokens::new([(&issuer, None)], LIMIT).unwrap();
    let supply = Arc::clone(tokens.supplies()[0]);
    (Arc::new(tokens), supply)
}

async fn asked(tokens: &Tokens, token: &str) -> Result<Option<String>, TokenFault> {
    let headers = headers(&[format!("Bearer {token}")]);
    let found = tokens.look(&headers, &policy("")).await?;
    Ok(found.map(|token| token.judged().subject.to_owned()))
}

/// A round that brings this set.
fn bring(supply: &Supply, set: &Value) -> bool {
    supply.settle(Ok(supply.read(set.to_string().as_bytes()).unwrap()))
}

#[tokio::test]
async fn a_removed_key_counts_no_more_and_old_keys_only_so_long() {
    let hour = Duration::from_hours(1);
    let (tokens, supply) = fetching(hour, hour);
    let (first, second) = sets();
    let old = ours("EdDSA", "ed", &claims(A));
    let new = token(
        r#"{"alg":"EdDSA","kid":"b1"}"#,
        &claims(A).to_string(),
        "other",
    );
    supply.due().await;
    assert!(!bring(&supply, &first));
    let good = Ok(Some("s".to_owned()));
    assert_eq!(asked(&tokens, &old).await, good);
    assert_eq!(asked(&tokens, &new).await, Err(TokenFault::UnknownKey));
    bring(&supply, &second);
    assert_eq!(asked(&tokens, &new).await, good);
    assert_eq!(asked(&tokens, &old).await, Err(TokenFault::UnknownKey));
    // A failure is told once, and takes nothing away yet.
    assert!(supply.settle(Err("late".to_owned())));
    assert!(!supply.settle(Err("late".to_owned())));
    assert_eq!(asked(&tokens, &new).await, good);
    let standing = supply.standing();
    assert_eq!(
        (standing.keys, standing.fault.as_deref()),
        (1, Some("late"))
    );

    let (tokens, supply) = fetching(hour, Duration::ZERO);
    bring(&supply, &second);
    assert_eq!(asked(&tokens, &new).await, Err(TokenFault::Unavailable));
    assert_eq!(supply.standing().keys, 0);
    // What is no set of keys never becomes one.
    let mut private = second["keys"][0].clone();
    private["d"] = json!("AQAB");
    for set in [
        json!({}),
        json!({ "keys": [] }),
        json!({ "keys": [private] }),
    ] {
        supply.read(set.to_string().as_bytes()).unwrap_err();
    }
}

#[tokio::test]
async fn a_new_key_is_looked_for_where_no_id_would_tell_it() {
    let apart = Duration::from_millis(1);
    let (tokens, supply) = fetching(apart, Duration::from_hours(1));
    let (first, second) = sets();
    let nameless = |set: &Value| json!({ "keys": nameless(set["keys"].as_array().unwrap()) });
    let (first, second) = (nameless(&first), nameless(&second));
    let new = |header: &str| token(header, &claims(A).to_string(), "other");
    supply.due().await;
    bring(&supply, &first);
    tokio::time::sleep(apart).await;
    let keeper = {
        let supply = Arc::clone(&supply);
        tokio::spawn(async move {
            loop {
                supply.due().await;
                bring(&supply, &second);
            }
        })
    };
    let good = Ok(Some("s".to_owned()));
    assert_eq!(asked(&tokens, &new(r#"{"alg":"EdDSA"}"#)).await, good);
    keeper.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_keys_wait_for_one_round_and_make_no_more() {
    let hour = Duration::from_hours(1);
    let (tokens, supply) = fetching(hour, hour);
    let rounds = Arc::new(AtomicU32::new(0));
    let mut tasks = JoinSet::new();
    let keeper = {
        let (supply, rounds) = (Arc::clone(&supply), Arc::clone(&rounds));
        async move {
            loop {
                supply.due().await;
                rounds.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                bring(&supply, &sets().0);
            }
        }
    };
    // Nobody fetches yet: all of them wait.
    for number in 0..64 {
        let tokens = Arc::clone(&tokens);
        let kid = if number == 0 {
            "ed".to_owned()
        } else {
            format!("k{number}")
        };
        let token = ours("EdDSA", &kid, &claims(A));
        tasks.spawn(async move { (kid, asked(&tokens, &token).await) });
    }
    let keeper = tokio::spawn(keeper);
    while let Some(done) = tasks.join_next().await {
        match done.unwrap() {
            (kid, Ok(found)) => assert_eq!((kid.as_str(), found.as_deref()), ("ed", Some("s"))),
            (kid, Err(fault)) => {
                assert_ne!(kid, "ed");
                assert_eq!(fault, TokenFault::UnknownKey);
            }
        }
    }
    assert_eq!(rounds.load(Ordering::SeqCst), 1);
    keeper.abort();
}

#[tokio::test]
async fn nobody_waits_longer_than_the_limit() {
    let hour = Duration::from_hours(1);
    let issuer = Issuer {
        jwks: KeySource::Url(HttpsUrl::parse("https://a.example/keys").unwrap()),
        refresh: hour,
        ..issuer(A)
    };
    let tokens = Tokens::new([(&issuer, None)], Duration::from_millis(50)).unwrap();
    let token = ours("EdDSA", "ed", &claims(A));
    assert_eq!(asked(&tokens, &token).await, Err(TokenFault::Unavailable));
}
