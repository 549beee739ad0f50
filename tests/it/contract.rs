//! The promises of `domain::ports`, as tests that every adapter of a port must pass.
//!
//! Each suite is a set of functions over the port, one for each rule. A macro makes a test of each
//! for one adapter. For example `store::suite!(fresh)` takes an async function that makes an empty
//! store and whatever must outlive it. After the suites come the rules of one machine only.

mod artifacts;
mod definitions;
pub(crate) mod dynamo;
mod dynamo_cost;
mod dynamo_drift;
mod forget;
mod keys;
pub(crate) mod local;
mod logs;
mod memory;
mod queue;
pub(crate) mod records;
mod secrets;
mod spoilt;
pub(crate) mod sqs;
mod statistics;
mod store;
mod tasks;
mod uploads;

/// Makes a `#[tokio::test]` of each rule of a suite, on a fresh adapter.
macro_rules! rules {
    ($module:ident, $fresh:path: $($rule:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                let (adapter, _outlives_it) = $fresh().await;
                $crate::contract::$module::$rule(adapter).await;
            }
        )*
    };
}
pub(crate) use rules;
