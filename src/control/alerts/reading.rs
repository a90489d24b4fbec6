//! Reading files on threads that may block: one thread for each file at a time, so that a file which hangs
//! (on a network's file system) keeps one of them and not one for each attempt.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::spawn_blocking;

/// What `read` gives back, once nobody else reads at `place`. Whoever stops waiting leaves a reading that
/// has begun to itself.
pub(super) async fn beside<T: Send + 'static>(
    place: &Path,
    read: impl FnOnce() -> T + Send + 'static,
) -> T {
    let turn = turns(place).lock_owned().await;
    let reading = spawn_blocking(move || {
        let _turn = turn;
        read()
    });
    match reading.await {
        Ok(read) => read,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

type Turns = Arc<tokio::sync::Mutex<()>>;

/// Whose turn it is at `place`. Those that nobody waits for are forgotten.
fn turns(place: &Path) -> Turns {
    static ALL: Mutex<Option<HashMap<PathBuf, Turns>>> = Mutex::new(None);
    // Nothing under the lock panics.
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    let all = all.get_or_insert_default();
    all.retain(|_, turns| Arc::strong_count(turns) > 1);
    Arc::clone(all.entry(place.to_owned()).or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_file_that_hangs_keeps_one_thread_and_others_are_read() {
        static BEGUN: AtomicUsize = AtomicUsize::new(0);
        let (release, hangs) = mpsc::channel::<()>();
        let hangs = Arc::new(Mutex::new(hangs));
        for _ in 0..20 {
            let hangs = Arc::clone(&hangs);
            let reading = beside(Path::new("hangs"), move || {
                BEGUN.fetch_add(1, Ordering::Relaxed);
                let _ = hangs.lock().unwrap().recv();
            });
            assert!(timeout(Duration::from_millis(1), reading).await.is_err());
        }
        assert_eq!(beside(Path::new("well"), || 7).await, 7);
        assert!(BEGUN.load(Ordering::Relaxed) <= 1);
        drop(release);
        beside(Path::new("hangs"), || ()).await;
    }
}
