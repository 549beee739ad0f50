//! The least that can be made of `lambda_runtime`: what a function's cold start is held against
//! (`just bench`). It stands here to be built of the same crates, with the same features and
//! profile, as the functions.

use lambda_runtime::{Error, LambdaEvent, service_fn, tracing};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    tracing::init_default_subscriber();
    lambda_runtime::run(service_fn(async |_: LambdaEvent<()>| Ok::<_, Error>(()))).await
}
