//! Lifetimes, bounds, and questions that are shared.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn found(ttl: u32, addresses: usize) -> Found {
    Found {
        addresses: vec![IpAddr::from([93, 184, 216, 34]); addresses],
        exists: true,
        aliases: Vec::new(),
        ttl,
        server: "127.0.0.1:53".parse().unwrap(),
        dropped: 0,
    }
}

fn keep(cache: &Cache, text: &str, ttl: u32, now: Instant) {
    cache.put(&name(text), Family::V4, &Arc::new(found(ttl, 1)), now);
}

#[test]
fn entries_live_as_long_as_they_say() {
    let (cache, now) = (Cache::new(8, 1 << 20), Instant::now());
    keep(&cache, "a.example", 30, now);
    let at = |seconds| now + Duration::from_secs(seconds);
    let left = cache.get(&name("a.example"), Family::V4, at(10)).unwrap().1;
    assert_eq!(left, Duration::from_secs(20));
    assert!(
        cache.get(&name("a.example"), Family::V6, at(10)).is_none(),
        "by type"
    );
    assert!(cache.get(&name("a.example"), Family::V4, at(30)).is_none());
    assert_eq!(cache.sizes().0, 0, "what is over is removed");
    keep(&cache, "zero.example", 0, now);
    assert_eq!(cache.sizes().0, 0, "nothing to keep");
}

#[test]
fn entries_and_bytes_are_bounded() {
    let now = Instant::now();
    let cache = Cache::new(4, 1 << 20);
    for n in 0..100 {
        keep(&cache, &format!("n{n}.example"), 30, now);
        keep(&cache, "again.example", 30, now);
    }
    let (entries, _, order, _) = cache.sizes();
    assert!(entries <= 4 && order <= 9, "{entries} {order}");
    assert!(
        cache.get(&name("again.example"), Family::V4, now).is_some(),
        "the newest stays"
    );

    let cache = Cache::new(1000, 2000);
    for n in 0..100 {
        keep(&cache, &format!("n{n}.example"), 30, now);
    }
    let (entries, weight, ..) = cache.sizes();
    assert!(weight <= 2000 && entries < 10, "{weight} {entries}");
    cache.put(
        &name("big.example"),
        Family::V4,
        &Arc::new(found(30, 1000)),
        now,
    );
    assert!(
        cache.get(&name("big.example"), Family::V4, now).is_none(),
        "larger than all"
    );
}

#[tokio::test]
async fn equal_questions_share_one_resolution() {
    let cache = Arc::new(Cache::new(8, 1 << 20));
    let (asked, gate) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(tokio::sync::Semaphore::new(0)),
    );
    let mut askers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (cache, asked, gate) = (Arc::clone(&cache), Arc::clone(&asked), Arc::clone(&gate));
        askers.spawn(async move {
            let resolve = || async {
                asked.fetch_add(1, Ordering::Relaxed);
                gate.acquire().await.unwrap().forget();
                Ok(found(30, 1))
            };
            cache
                .share(&name("a.example"), Family::V4, resolve)
                .await
                .unwrap()
        });
    }
    tokio::task::yield_now().await;
    assert_eq!(cache.sizes().3, 1, "one under way");
    gate.add_permits(1);
    while let Some(joined) = askers.join_next().await {
        assert_eq!(joined.unwrap().addresses.len(), 1);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(cache.sizes().3, 0, "none under way");
}

#[tokio::test]
async fn an_asker_that_goes_away_leaves_its_place() {
    let cache = Arc::new(Cache::new(8, 1 << 20));
    let first = tokio::spawn({
        let cache = Arc::clone(&cache);
        async move {
            cache
                .share(&name("a.example"), Family::V4, std::future::pending)
                .await
        }
    });
    while cache.sizes().3 == 0 {
        tokio::task::yield_now().await;
    }
    let second = tokio::spawn({
        let cache = Arc::clone(&cache);
        async move {
            cache
                .share(&name("a.example"), Family::V4, || async {
                    Ok(found(30, 1))
                })
                .await
        }
    });
    tokio::task::yield_now().await;
    first.abort();
    assert_eq!(second.await.unwrap().unwrap().ttl, 30);
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!(cache.sizes().3, 0);

    let alone = tokio::spawn({
        let cache = Arc::clone(&cache);
        async move {
            cache
                .share(&name("b.example"), Family::V4, std::future::pending)
                .await
        }
    });
    while cache.sizes().3 == 0 {
        tokio::task::yield_now().await;
    }
    alone.abort();
    assert!(alone.await.unwrap_err().is_cancelled());
    assert_eq!(cache.sizes().3, 0, "nothing is left behind");
}

#[tokio::test]
async fn faults_are_shared_and_not_kept() {
    let cache = Cache::new(8, 1 << 20);
    let fault = || async {
        let fault = UpstreamFault::Deadline {
            name: "a.example".into(),
        };
        Err(Unresolved { fault, dropped: 3 })
    };
    let (_, dropped) = cache
        .share(&name("a.example"), Family::V4, fault)
        .await
        .unwrap_err();
    assert_eq!((dropped, cache.sizes().0, cache.sizes().3), (3, 0, 0));
}
