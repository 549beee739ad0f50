//! The submit function: every route that writes. It records and sends messages; it never touches
//! ECS.

// The SDK's futures nest deeper than rustc's default limit.
#![recursion_limit = "256"]

use aws::{
    artifacts::S3Artifacts,
    connect,
    dynamo::DynamoStore,
    settings::{Function, Installation},
    sqs::SqsQueue,
    system::System,
};
use aws_lambda_events::apigw::ApiGatewayProxyRequest;
use lambda_runtime::{Error, LambdaEvent, Runtime, service_fn};
use pipeline::{attempts, auth::Auth, submit::Submit, uploads::Uploads};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    logging::init_function();
    let Installation {
        settings, names, ..
    } = Installation::from_environment(Function::Submit)?;
    let config = connect::from_environment()?;
    let store = DynamoStore::of(&config, names.table, names.retention_days);
    let queue = SqsQueue::new(&config, names.launch_queue_url, names.control_queue_url);
    let auth = Auth::default();
    let submit = Submit {
        store: &store,
        keys: &store,
        queue: &queue,
        secrets: &store,
        system: &System,
        auth: &auth,
        settings: &settings,
    };
    let files = S3Artifacts::new(&config, names.artifacts_bucket);
    let uploads = Uploads {
        store: &store,
        files: &files,
        system: &System,
    };
    let answer = async |event: LambdaEvent<ApiGatewayProxyRequest>| {
        let request = &event.payload;
        Ok::<_, Error>(match attempts::takes(request) {
            true => uploads.handle(request).await,
            false => submit.handle(request).await,
        })
    };
    Runtime::new(service_fn(answer)).run().await
}
