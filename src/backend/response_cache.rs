//! Answers that serve everybody who asks the same.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use http::response;
use tokio::time::Instant;

use super::forward::ForwardError;

/// How many answers are kept, or waited for, at most.
const MOST: usize = 4096;

/// An answer that serves everybody who asks the same.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status and headers.
    pub head: response::Parts,
    /// The whole body.
    pub body: Bytes,
}

/// A hash of what is asked, where an answer may serve several, and of whatever the answer may depend on.
pub type Question = [u8; 32];

/// An answer, or `None` for one that cannot serve several.
type Answered = Result<Option<Answer>, ForwardError>;

/// A request on its way, which ends with the last of those who wait for it.
type Asking = BoxFuture<'static, Answered>;

/// The newest answer of a backend to each question.
#[derive(Debug, Default)]
pub struct ResponseCache(Mutex<HashMap<Question, Entry>>);

#[derive(Debug)]
enum Entry {
    /// It is waited for.
    Asked(WeakShared<Asking>),
    /// It came then.
    Answered(Instant, Option<Answer>),
}

impl Entry {
    /// Whether it is of use to somebody who asks now.
    fn is_fresh(&self, keep: Duration) -> bool {
        match self {
            Self::Asked(asking) => asking.upgrade().is_some(),
            Self::Answered(at, _) => at.elapsed() < keep,
        }
    }
}

impl ResponseCache {
    /// The answer to `question` that came within `keep`.
    pub fn kept(&self, question: &Question, keep: Duration) -> Option<Option<Answer>> {
        match self.entries().get(question) {
            Some(Entry::Answered(at, answer)) if at.elapsed() < keep => Some(answer.clone()),
            _ => None,
        }
    }

    /// The answer to `question`: the one that came within `keep`, or what `ask` gives. All who ask in the meantime
    /// wait for the same request, for as long as any of them does. If `keep` is zero, everybody asks anew.
    ///
    /// # Errors
    ///
    /// Those of `ask`, for all who waited. They are not kept.
    pub async fn answer(
        &self,
        question: Question,
        keep: Duration,
        ask: impl Future<Output = Answered> + Send + 'static,
    ) -> Answered {
        if keep.is_zero() {
            return ask.await;
        }
        let asking = {
            let mut entries = self.entries();
            match entries.get(&question) {
                Some(Entry::Answered(at, answer)) if at.elapsed() < keep => return Ok(answer.clone()),
                Some(Entry::Asked(asking)) => asking.upgrade(),
                _ => None,
            }
            .unwrap_or_else(|| begin(&mut entries, question, keep, ask))
        };
        let answered = asking.clone().await;
        self.end(&question, &asking, &answered);
        answered
    }

    /// Forgets all answers. Those that are waited for serve nobody who asks from now on.
    pub fn clear(&self) {
        self.entries().clear();
    }

    /// Keeps what `asking` gave, if it still is the newest request.
    fn end(&self, question: &Question, asking: &Shared<Asking>, answered: &Answered) {
        let mut entries = self.entries();
        let is_newest = match entries.get(question) {
            Some(Entry::Asked(newest)) => newest.upgrade().is_some_and(|newest| newest.ptr_eq(asking)),
            _ => false,
        };
        match answered {
            Ok(answer) if is_newest => {
                entries.insert(*question, Entry::Answered(Instant::now(), answer.clone()));
            }
            Err(_) if is_newest => {
                entries.remove(question);
            }
            _ => {}
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Question, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn begin(
    entries: &mut HashMap<Question, Entry>,
    question: Question,
    keep: Duration,
    ask: impl Future<Output = Answered> + Send + 'static,
) -> Shared<Asking> {
    let asking = ask.boxed().shared();
    entries.retain(|_, entry| entry.is_fresh(keep));
    if entries.len() >= MOST {
        // Asking once more does no harm.
        entries.clear();
    }
    if let Some(weak) = asking.downgrade() {
        entries.insert(question, Entry::Asked(weak));
    }
    asking
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
    const HERE: Question = [0; 32];
    const ELSEWHERE: Question = [1; 32];

    fn said(text: &'static str) -> Answered {
        let (head, ()) = http::Response::new(()).into_parts();
        Ok(Some(Answer { head, body: Bytes::from_static(text.as_bytes()) }))
    }

    fn failed() -> Answered {
        Err(ForwardError::Broken { remote: Remote::Backend, why: "down".to_owned() })
    }

    fn text(answered: Answered) -> Bytes {
        answered.unwrap().unwrap().body
    }

    #[tokio::test(start_paused = true)]
    async fn one_answer_serves_all_who_ask_within_a_second_and_no_longer() {
        let cache = ResponseCache::default();
        let asked = Arc::new(AtomicUsize::new(0));
        let ask = |question, keep| {
            let asked = Arc::clone(&asked);
            cache.answer(question, keep, async move {
                asked.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(100)).await;
                said("here")
            })
        };
        let (first, second) = tokio::join!(ask(HERE, KEEP), ask(HERE, KEEP));
        assert_eq!((text(first), text(second)), ("here".into(), "here".into()));
        ask(HERE, KEEP).await.unwrap();
        assert!(cache.kept(&HERE, KEEP).is_some());
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        ask(ELSEWHERE, KEEP).await.unwrap();
        advance(KEEP).await;
        assert!(cache.kept(&HERE, KEEP).is_none());
        ask(HERE, KEEP).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 3);
        cache.clear();
        ask(HERE, KEEP).await.unwrap();
        for _ in 0..2 {
            ask(HERE, Duration::ZERO).await.unwrap();
        }
        assert_eq!(asked.load(Ordering::Relaxed), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_hangs_is_shared_for_as_long_as_anybody_waits_for_it() {
        let cache = ResponseCache::default();
        let (release, released) = watch::channel(false);
        let asked = Arc::new(AtomicUsize::new(0));
        let ask = || {
            let (asked, mut released) = (Arc::clone(&asked), released.clone());
            Box::pin(cache.answer(HERE, KEEP, async move {
                asked.fetch_add(1, Ordering::Relaxed);
                let _ = released.wait_for(|released| *released).await;
                said("at last")
            }))
        };
        let mut waiting = Vec::new();
        for _ in 0..100 {
            let mut asking = ask();
            assert!(poll!(&mut asking).is_pending());
            waiting.push(asking);
            advance(Duration::from_secs(5)).await;
        }
        // The first may leave, and the request is the same.
        drop(waiting.remove(0));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        release.send_replace(true);
        for asking in waiting {
            assert_eq!(text(asking.await), "at last");
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);

        // With the last of them the request ends, and the next one asks anew.
        release.send_replace(false);
        advance(KEEP).await;
        assert!(poll!(ask()).is_pending());
        assert!(poll!(ask()).is_pending());
        assert_eq!(asked.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_for_those_who_waited_and_for_nobody_else() {
        let cache = ResponseCache::default();
        let fail = || {
            cache.answer(HERE, KEEP, async {
                sleep(KEEP).await;
                failed()
            })
        };
        let (first, second) = tokio::join!(fail(), fail());
        assert!(first.is_err() && second.is_err());
        assert_eq!(text(cache.answer(HERE, KEEP, async { said("up") }).await), "up");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_to_what_was_asked_before_all_were_forgotten_is_not_kept() {
        let cache = ResponseCache::default();
        let old = cache.answer(HERE, KEEP, async {
            sleep(KEEP).await;
            said("old")
        });
        let new = async {
            cache.clear();
            cache.answer(HERE, KEEP, async { said("new") }).await
        };
        let (old, new) = tokio::join!(old, new);
        assert_eq!((text(old), text(new)), ("old".into(), "new".into()));
        assert!(cache.kept(&HERE, 2 * KEEP).is_some_and(|answer| answer.unwrap().body == "new"));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_kept_than_there_is_room_for() {
        let cache = ResponseCache::default();
        for number in 0..=MOST {
            let mut question = HERE;
            question[..8].copy_from_slice(&number.to_be_bytes());
            cache.answer(question, KEEP, async { said("here") }).await.unwrap();
        }
        assert_eq!(cache.entries().len(), 1);
    }
}
