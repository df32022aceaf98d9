//! A thread of its own for a piece of async work that also reads files or SQL: it may block without keeping anyone else
//! waiting, and what it wakes is itself. Limits: one thread for each call, ended when the call's future is dropped.

use std::future::Future;
use std::io;
use std::panic::resume_unwind;

use tokio::sync::oneshot;

/// Runs `work` on a new thread with a runtime of its own, and returns what it returns. A panic of it goes on here. Dropping
/// the future ends the work at its next await.
///
/// # Errors
/// The thread or its runtime could not be made.
pub async fn on_own_thread<T, Work>(name: &str, work: impl FnOnce() -> Work + Send + 'static) -> io::Result<T>
where
    T: Send + 'static,
    Work: Future<Output = T>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut done_tx, done_rx) = oneshot::channel();
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let done = runtime.block_on(async {
            tokio::select! {
                done = work() => Some(done),
                () = done_tx.closed() => None,
            }
        });
        // Lookups of names and the like must not hold the thread's end.
        runtime.shutdown_background();
        if let Some(done) = done
            && done_tx.send(done).is_err()
        {
            tracing::debug!("nobody waits for the thread any more");
        }
    })?;
    match done_rx.await {
        Ok(done) => Ok(done),
        // Without an answer it has panicked, so this does not block.
        Err(_gone) => match thread.join() {
            Ok(()) => Err(io::Error::other("the thread ended without an answer")),
            Err(panic) => resume_unwind(panic),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn work_may_block_its_own_thread() {
        let own = on_own_thread("own", || async { std::thread::current().name().map(str::to_owned) }).await;
        assert_eq!(own.unwrap().as_deref(), Some("own"));
    }

    #[tokio::test]
    async fn a_panic_comes_back_to_whoever_waits() {
        let work = on_own_thread("own", || async { panic!("a fault") });
        let panic = std::panic::AssertUnwindSafe(work).catch_unwind().await.map(|_: io::Result<()>| ());
        assert_eq!(panic.unwrap_err().downcast_ref::<&str>(), Some(&"a fault"));
    }

    #[tokio::test]
    async fn dropping_the_future_ends_the_work() {
        struct Tells(Arc<Notify>);
        impl Drop for Tells {
            fn drop(&mut self) {
                self.0.notify_one();
            }
        }
        let (begun, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (started, tells) = (Arc::clone(&begun), Tells(Arc::clone(&ended)));
        let work = on_own_thread("own", move || async move {
            let _tells = tells;
            started.notify_one();
            std::future::pending::<()>().await;
        });
        tokio::select! {
            done = work => panic!("it ended by itself: {done:?}"),
            () = begun.notified() => {}
        }
        tokio::time::timeout(Duration::from_secs(10), ended.notified()).await.expect("the work was dropped");
    }
}
