//! The query function: every route that reads.

// The SDK's futures nest deeper than rustc's default limit.
#![recursion_limit = "256"]

use aws::{
    artifacts::S3Artifacts,
    connect,
    dynamo::DynamoStore,
    logs::CloudWatchLogs,
    settings::{Function, Installation},
    system::System,
};
use aws_lambda_events::apigw::ApiGatewayProxyRequest;
use lambda_runtime::{Error, LambdaEvent, Runtime, service_fn};
use pipeline::{attempts, auth::Auth, query::Query, recent::Recent};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    logging::init_function();
    let Installation {
        settings, names, ..
    } = Installation::from_environment(Function::Query)?;
    let config = connect::from_environment()?;
    let store = DynamoStore::of(&config, names.table, names.retention_days);
    let logs = Recent::new(
        CloudWatchLogs::new(&config, settings.log_group.clone()),
        &System,
    );
    let artifacts = S3Artifacts::new(&config, names.artifacts_bucket);
    let auth = Auth::default();
    let query = Query {
        store: &store,
        keys: &store,
        logs: &logs,
        artifacts: &artifacts,
        system: &System,
        auth: &auth,
        settings: &settings,
    };
    let answer = async |event: LambdaEvent<ApiGatewayProxyRequest>| {
        let request = &event.payload;
        Ok::<_, Error>(match attempts::takes(request) {
            true => attempts::request(&store, request).await,
            false => query.handle(request).await,
        })
    };
    Runtime::new(service_fn(answer)).run().await
}
