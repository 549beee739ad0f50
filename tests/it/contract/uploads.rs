//! The record of what attempts may upload.

use domain::{
    ports::UploadRecords,
    upload::{LargeUpload, UploadBatch},
};
use tests::memory::MemoryStore;

use super::{
    dynamo::fresh_store,
    records::{Wish, at},
};

/// A batch is recorded once. A later caller gets the first one.
async fn a_batch_is_recorded_once(store: &impl UploadRecords) {
    let execution = Wish::default().execution();
    let (one, other) = (execution.id.attempt(1), execution.id.attempt(2));
    let batch = UploadBatch {
        number: 12,
        digest: "d".into(),
        files: 3,
        bytes: 20_000_000_000,
        large: Some(LargeUpload {
            bytes: 9,
            id: "id".into(),
        }),
    };
    let begin = async |attempt, batch: &UploadBatch| {
        let begun = store.begin_upload_batch(attempt, batch, at(2_000_000));
        begun.await.expect("the store answers")
    };
    let load = async |attempt, number| {
        let loaded = store.upload_batch(attempt, number);
        loaded.await.expect("the store answers")
    };
    assert_eq!(load(&one, 12).await, None);
    assert_eq!(begin(&one, &batch).await, batch);
    let later = UploadBatch {
        digest: "e".into(),
        large: None,
        ..batch.clone()
    };
    assert_eq!(begin(&one, &later).await, batch);
    assert_eq!(load(&one, 12).await, Some(batch));
    assert_eq!((load(&one, 1).await, load(&other, 12).await), (None, None));
    assert_eq!(begin(&other, &later).await, later);
}

#[tokio::test]
async fn a_batch_is_recorded_once_in_memory() {
    a_batch_is_recorded_once(&MemoryStore::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_recorded_once_in_dynamo() {
    let (store, _table) = fresh_store().await;
    a_batch_is_recorded_once(&store).await;
}
