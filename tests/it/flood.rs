//! A flood of wrong keys. Anybody can send them, so they must cost next to nothing.

use std::sync::{Arc, Barrier};

use domain::{
    key::{ApiKey, Role},
    ports::Keys,
    principal::Principal,
};
use pipeline::auth::{self, Auth, AuthError};
use tests::memory::MemoryStore;
use tokio::runtime::{Builder, Runtime};

use crate::contract::records::at;

/// A runtime with a single thread for blocking work such as bcrypt.
fn with_one_blocking_thread() -> Runtime {
    Builder::new_current_thread()
        .max_blocking_threads(1)
        .build()
        .expect("a runtime")
}

fn key(number: u8) -> ApiKey {
    ApiKey::from_entropy([number; 32])
}

fn header(key: &ApiKey) -> String {
    format!("Bearer {}", key.expose())
}

/// The function's only thread for bcrypt is busy for good. Unknown keys are refused even so; a
/// right one waits.
#[test]
fn keys_that_nobody_has_are_refused_without_bcrypt() {
    let runtime = with_one_blocking_thread();
    let (store, auth) = (MemoryStore::default(), Auth::default());
    let right = key(1);
    let principal = Principal::Key("alice".into());
    runtime.block_on(async {
        let record = auth::record(&right, "alice", Role::Submit, principal, at(0))
            .await
            .expect("random bytes");
        assert!(store.add_key(&record).await.expect("it answers"));
    });
    let (busy, done) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (taken, free) = (Arc::clone(&busy), Arc::clone(&done));
    runtime.spawn_blocking(move || {
        taken.wait();
        free.wait();
    });
    busy.wait();
    runtime.block_on(async {
        for number in 2..=255 {
            let verdict = auth
                .caller(Some(&header(&key(number))), &store, at(1))
                .await;
            assert!(matches!(verdict, Err(AuthError::Unknown)), "{verdict:?}");
        }
        let header = header(&right);
        let right = auth.caller(Some(&header), &store, at(1));
        tokio::pin!(right);
        assert!(
            futures_util::poll!(&mut right).is_pending(),
            "a key that is known is verified, and that takes a core"
        );
        done.wait();
        assert_eq!(right.await.expect("it is right").name, "alice");
    });
}
