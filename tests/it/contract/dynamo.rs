//! The store of a stack: the contracts.

use aws::dynamo::DynamoStore;
use tests::table::Table;

use super::records::at;

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
