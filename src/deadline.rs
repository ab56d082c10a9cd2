//! Time limits for data from a peer.
//!
//! While the process is stopped (`SIGSTOP`, a paused machine), time advances and data waits in the sockets. When it
//! continues, every limit has expired before anything is read. So an expired limit is extended by a grace period: the
//! runtime polls the sockets, the tasks that read them run, and only a peer that has sent nothing times out.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::error::Elapsed;
use tokio::time::{self, Instant, Sleep};

/// The grace period after a limit has expired, in which received data is read.
pub const GRACE: Duration = Duration::from_millis(250);

/// A limit that can be reset.
#[derive(Debug)]
pub struct DeadlineTimer {
    sleep: Pin<Box<Sleep>>,
    due: Instant,
    in_grace: bool,
}

impl DeadlineTimer {
    /// A timer that expires at `due`.
    pub fn new(due: Instant) -> Self {
        Self { sleep: Box::pin(time::sleep_until(due)), due, in_grace: false }
    }

    /// A timer that expires after `limit`. A limit of zero expires at once, without a grace period.
    pub fn after(limit: Duration) -> Self {
        Self { in_grace: limit.is_zero(), ..Self::new(Instant::now() + limit) }
    }

    /// Sets the deadline to `due`. If it is unchanged, the timer continues.
    pub fn set(&mut self, due: Instant) {
        if due != self.due {
            self.due = due;
            self.in_grace = false;
            self.sleep.as_mut().reset(due);
        }
    }

    /// Sets the deadline to `limit` from now, as [`DeadlineTimer::after`] does.
    pub fn restart(&mut self, limit: Duration) {
        self.set(Instant::now() + limit);
        self.in_grace = limit.is_zero();
    }

    /// Ready when the limit and the grace period have passed.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.sleep.as_mut().poll(cx));
        if self.in_grace {
            return Poll::Ready(());
        }
        self.in_grace = true;
        self.sleep.as_mut().reset(Instant::now() + GRACE);
        self.sleep.as_mut().poll(cx)
    }

    /// Waits until [`DeadlineTimer::poll_expired`] is ready. Cancel safe.
    pub async fn expired(&mut self) {
        poll_fn(|cx| self.poll_expired(cx)).await;
    }
}

/// Waits for `limit` and the grace period.
pub async fn sleep(limit: Duration) {
    DeadlineTimer::after(limit).expired().await;
}

/// Waits for `future`, for `limit` at most.
///
/// # Errors
///
/// `future` was not ready in that time.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    timeout_at(Instant::now() + limit, future).await
}

/// Waits for `future`, until `deadline` at most.
///
/// # Errors
///
/// `future` was not ready in that time.
pub async fn timeout_at<F: Future>(deadline: Instant, future: F) -> Result<F::Output, Elapsed> {
    let mut future = std::pin::pin!(future);
    match time::timeout_at(deadline, &mut future).await {
        Ok(output) => Ok(output),
        Err(_) => time::timeout(GRACE, future).await,
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);
    const PAUSE: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_is_overdue_after_a_pause_leaves_time_for_what_has_come() {
        let mut timer = DeadlineTimer::after(LIMIT);
        time::advance(PAUSE).await;
        assert!(timer.expired().now_or_never().is_none());
        time::advance(GRACE).await;
        assert!(timer.expired().now_or_never().is_some());
        timer.restart(LIMIT);
        let began = Instant::now();
        timer.expired().await;
        assert_eq!(began.elapsed(), LIMIT + GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_of_zero_has_no_moment_more() {
        let mut timer = DeadlineTimer::after(Duration::ZERO);
        time::advance(GRACE / 2).await;
        assert!(timer.expired().now_or_never().is_some());
        timer.restart(LIMIT);
        timer.restart(Duration::ZERO);
        time::advance(GRACE / 2).await;
        assert!(timer.expired().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_is_set_to_the_same_time_again_is_over_all_the_same() {
        let due = Instant::now() + LIMIT;
        let mut timer = DeadlineTimer::new(due);
        time::advance(LIMIT).await;
        assert!(timer.expired().now_or_never().is_none());
        timer.set(due);
        time::advance(GRACE).await;
        assert!(timer.expired().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_come_during_a_pause_counts_though_another_task_must_read_it_first() {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = Box::pin(timeout(LIMIT, receiver));
        assert!(waiting.as_mut().now_or_never().is_none());
        time::advance(PAUSE).await;
        assert!(waiting.as_mut().now_or_never().is_none());
        sender.send("read").unwrap();
        assert_eq!(waiting.await, Ok(Ok("read")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_sends_nothing_is_overdue() {
        let began = Instant::now();
        assert!(timeout(LIMIT, std::future::pending::<()>()).await.is_err());
        assert_eq!(began.elapsed().as_secs(), LIMIT.as_secs());
    }
}
