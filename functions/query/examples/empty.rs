//! The smallest possible function on `lambda_runtime`, with which a function's cold start is
//! compared (`just bench`). It is in this package so that it is built with the same crates,
//! features and profile as the functions.

use lambda_runtime::{Error, LambdaEvent, service_fn, tracing};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    tracing::init_default_subscriber();
    lambda_runtime::run(service_fn(async |_: LambdaEvent<()>| Ok::<_, Error>(()))).await
}
