//! The smallest possible function on `lambda_runtime`, with which a function's cold start is
//! compared (`just bench`). It is in this package so that it is built with the same crates,
//! features and profile as the functions.

use lambda_runtime::{Error, LambdaEvent, Runtime, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    logging::init_function();
    let answer = async |_: LambdaEvent<()>| Ok::<_, Error>(());
    Runtime::new(service_fn(answer)).run().await
}
