//! A cache of responses that identical requests share.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use http::Response;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::forward::ForwardError;

/// The maximum number of entries, pending ones included.
const MAX_ENTRIES: usize = 4096;

/// A response that identical requests share, with its whole body.
pub type CachedResponse = Response<Bytes>;

/// A hash of a shareable request and of all that its response may depend on.
pub type CacheKey = [u8; 32];

/// A response, or `None` for one that cannot be shared.
type CacheResult = Result<Option<CachedResponse>, ForwardError>;

/// A pending request. It is cancelled when its last waiter is dropped.
type PendingFetch = BoxFuture<'static, CacheResult>;

/// The latest response to each request.
#[derive(Debug, Default)]
pub struct ResponseCache(Mutex<HashMap<CacheKey, CacheEntry>>);

#[derive(Debug)]
enum CacheEntry {
    /// The request is pending.
    Pending(WeakShared<PendingFetch>),
    /// The response arrived at this time.
    Ready(Instant, Option<CachedResponse>),
}

impl CacheEntry {
    /// Returns whether the entry can serve a new request.
    fn is_fresh(&self, ttl: Duration) -> bool {
        match self {
            Self::Pending(pending) => pending.upgrade().is_some(),
            Self::Ready(at, _) => at.elapsed() < ttl,
        }
    }
}

impl ResponseCache {
    /// The response for `key`, if it is younger than `ttl`.
    pub fn get(&self, key: &CacheKey, ttl: Duration) -> Option<Option<CachedResponse>> {
        match self.0.lock().get(key) {
            Some(CacheEntry::Ready(at, answer)) if at.elapsed() < ttl => Some(answer.clone()),
            _ => None,
        }
    }

    /// Returns the response for `key`, if it is younger than `ttl`, or fetches it. Concurrent callers share one
    /// request, which runs as long as one of them waits. If `ttl` is zero, every call fetches anew. An error of the
    /// fetch goes to all waiters, and is not cached.
    pub async fn get_or_fetch(
        &self,
        key: CacheKey,
        ttl: Duration,
        fetch: impl Future<Output = CacheResult> + Send + 'static,
    ) -> CacheResult {
        if ttl.is_zero() {
            return fetch.await;
        }
        let pending = {
            let mut entries = self.0.lock();
            let pending = match entries.get(&key) {
                Some(CacheEntry::Ready(at, answer)) if at.elapsed() < ttl => return Ok(answer.clone()),
                Some(CacheEntry::Pending(pending)) => pending.upgrade(),
                _ => None,
            };
            pending.unwrap_or_else(|| start_fetch(&mut entries, key, ttl, fetch))
        };
        let result = pending.clone().await;
        self.complete(&key, &pending, &result);
        result
    }

    /// Clears the cache. Pending requests serve no later caller.
    pub fn clear(&self) {
        self.0.lock().clear();
    }

    /// Stores the result of `pending`, if it still is the latest request.
    fn complete(&self, key: &CacheKey, pending: &Shared<PendingFetch>, result: &CacheResult) {
        let mut entries = self.0.lock();
        let Some(CacheEntry::Pending(newest)) = entries.get(key) else { return };
        if !newest.upgrade().is_some_and(|newest| newest.ptr_eq(pending)) {
            return;
        }
        match result {
            Ok(answer) => entries.insert(*key, CacheEntry::Ready(Instant::now(), answer.clone())),
            Err(_) => entries.remove(key),
        };
    }
}

fn start_fetch(
    entries: &mut HashMap<CacheKey, CacheEntry>,
    key: CacheKey,
    ttl: Duration,
    fetch: impl Future<Output = CacheResult> + Send + 'static,
) -> Shared<PendingFetch> {
    let pending = fetch.boxed().shared();
    entries.retain(|_, entry| entry.is_fresh(ttl));
    if entries.len() >= MAX_ENTRIES {
        // A repeated request does no harm.
        entries.clear();
    }
    if let Some(weak) = pending.downgrade() {
        entries.insert(key, CacheEntry::Pending(weak));
    }
    pending
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::poll;
    use tokio::sync::watch;
    use tokio::time::{advance, sleep};

    use super::*;
    use crate::core::remote::Remote;

    const KEEP: Duration = Duration::from_secs(1);
    const HERE: CacheKey = [0; 32];
    const ELSEWHERE: CacheKey = [1; 32];

    fn response(text: &'static str) -> CacheResult {
        Ok(Some(Response::new(text.into())))
    }

    fn text(result: CacheResult) -> Bytes {
        result.unwrap().unwrap().into_body()
    }

    #[tokio::test(start_paused = true)]
    async fn one_answer_serves_all_who_ask_within_a_second_and_no_longer() {
        let cache = ResponseCache::default();
        let requests = Arc::new(AtomicUsize::new(0));
        let fetch = |key, ttl| {
            let requests = Arc::clone(&requests);
            cache.get_or_fetch(key, ttl, async move {
                requests.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(100)).await;
                response("here")
            })
        };
        let (first, second) = tokio::join!(fetch(HERE, KEEP), fetch(HERE, KEEP));
        assert_eq!((text(first), text(second)), ("here".into(), "here".into()));
        fetch(HERE, KEEP).await.unwrap();
        assert!(cache.get(&HERE, KEEP).is_some());
        assert_eq!(requests.load(Ordering::Relaxed), 1);
        fetch(ELSEWHERE, KEEP).await.unwrap();
        advance(KEEP).await;
        assert!(cache.get(&HERE, KEEP).is_none());
        fetch(HERE, KEEP).await.unwrap();
        assert_eq!(requests.load(Ordering::Relaxed), 3);
        cache.clear();
        fetch(HERE, KEEP).await.unwrap();
        for _ in 0..2 {
            fetch(HERE, Duration::ZERO).await.unwrap();
        }
        assert_eq!(requests.load(Ordering::Relaxed), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_hangs_is_shared_for_as_long_as_anybody_waits_for_it() {
        let cache = ResponseCache::default();
        let (release, released) = watch::channel(false);
        let requests = Arc::new(AtomicUsize::new(0));
        let fetch = || {
            let (requests, mut released) = (Arc::clone(&requests), released.clone());
            Box::pin(cache.get_or_fetch(HERE, KEEP, async move {
                requests.fetch_add(1, Ordering::Relaxed);
                let _ = released.wait_for(|released| *released).await;
                response("at last")
            }))
        };
        let mut waiting = Vec::new();
        for _ in 0..100 {
            let mut pending = fetch();
            assert!(poll!(&mut pending).is_pending());
            waiting.push(pending);
            advance(Duration::from_secs(5)).await;
        }
        // The first waiter may leave; the request continues.
        drop(waiting.remove(0));
        assert_eq!(requests.load(Ordering::Relaxed), 1);
        release.send_replace(true);
        for pending in waiting {
            assert_eq!(text(pending.await), "at last");
        }
        assert_eq!(requests.load(Ordering::Relaxed), 1);

        // With the last waiter the request is cancelled, and the next call fetches anew.
        release.send_replace(false);
        advance(KEEP).await;
        assert!(poll!(fetch()).is_pending());
        assert!(poll!(fetch()).is_pending());
        assert_eq!(requests.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_shared_by_waiting_requests_and_not_cached() {
        let cache = ResponseCache::default();
        let fail = || {
            cache.get_or_fetch(HERE, KEEP, async {
                sleep(KEEP).await;
                Err(ForwardError::Broken { remote: Remote::Backend, why: "down".to_owned() })
            })
        };
        let (first, second) = tokio::join!(fail(), fail());
        assert!(first.is_err() && second.is_err());
        assert_eq!(text(cache.get_or_fetch(HERE, KEEP, async { response("up") }).await), "up");
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_to_a_request_before_a_clear_is_not_cached() {
        let cache = ResponseCache::default();
        let old = cache.get_or_fetch(HERE, KEEP, async {
            sleep(KEEP).await;
            response("old")
        });
        let new = async {
            cache.clear();
            cache.get_or_fetch(HERE, KEEP, async { response("new") }).await
        };
        let (old, new) = tokio::join!(old, new);
        assert_eq!((text(old), text(new)), ("old".into(), "new".into()));
        assert!(cache.get(&HERE, 2 * KEEP).is_some_and(|answer| answer.unwrap().body() == "new"));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_kept_than_there_is_room_for() {
        let cache = ResponseCache::default();
        for number in 0..=MAX_ENTRIES {
            let mut key = HERE;
            key[..8].copy_from_slice(&number.to_be_bytes());
            cache.get_or_fetch(key, KEEP, async { response("here") }).await.unwrap();
        }
        assert_eq!(cache.0.lock().len(), 1);
    }
}
