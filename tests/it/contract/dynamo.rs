//! The store of a stack: the contracts.

use aws::dynamo::DynamoStore;
use domain::ports::{Created, Store};
use tests::table::Table;

use super::records::{Wish, at};

/// When all of these tests play, or a little later.
fn now() -> domain::Timestamp {
    at(1_000_000)
}

pub(crate) async fn fresh_store() -> (DynamoStore, Table) {
    let table = Table::create().await;
    (DynamoStore::new(table.client.clone(), &table.name, 90).with_clock(now), table)
}

mod store {
    crate::contract::store::suite!(super::fresh_store);
}

mod keys {
    crate::contract::keys::suite!(super::fresh_store);
}

mod definitions {
    crate::contract::definitions::suite!(super::fresh_store);
}

/// Between a request and its state somebody died; the same place is then taken by another request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_a_crash_left_behind_is_replaced_by_the_one_that_is_accepted() {
    let (store, table) = fresh_store().await;
    let abandoned = Wish { priority: 7, ..Wish::default() }.execution();
    let [request, _] = store.items(&abandoned).expect("it can be spelled");
    table.client.put_item().table_name(&table.name).set_item(Some(request)).send().await.expect("it is put");
    assert_eq!(store.load(&abandoned.id).await.expect("the store answers"), None);
    let accepted = Wish::default().execution();
    assert_eq!(store.create(&accepted, None).await.expect("the store answers"), Created::New);
    assert_eq!(store.load(&accepted.id).await.expect("the store answers"), Some(accepted));
}
