//! How this project talks to AWS.
//!
//! Every client of a process shares one HTTP client, and with it connections and root certificates.
//! Its TLS is rustls over ring: AWS-LC may take up to a second for its first random bytes
//! (AWS-FACTS §5), and a cold start waits for that.
//!
//! A function's credentials and region are those that Lambda puts into its environment. There is no
//! chain of profiles, SSO and instance metadata: it would only make the binary larger, and its
//! look-ups slow where they find nothing.

use std::{
    env, fmt,
    ops::Deref,
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use aws_config::{
    AppName, BehaviorVersion, Region, SdkConfig,
    environment::EnvironmentVariableCredentialsProvider, retry::RetryConfig,
    timeout::TimeoutConfig,
};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_http_client::{
    Builder, Connector,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::http::{HttpClient, SharedHttpClient, http_client_fn};
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};

/// How long a connection may take to be made. Ours: within a region it takes milliseconds.
const CONNECT: Duration = Duration::from_secs(2);
/// How long one attempt at a call may take. Ours: above what RunTask takes when it is slow, below a
/// function's own time by far.
const ATTEMPT: Duration = Duration::from_secs(8);
/// How long a call may take with its repetitions: below API Gateway's 29 s (AWS-FACTS §7), so that
/// a caller is told.
const OPERATION: Duration = Duration::from_secs(20);
/// Attempts at a call, the first included. Ours: what still fails is repeated by the queue or the
/// sweep, after a pause.
const ATTEMPTS: u32 = 3;
/// How long an idle connection is kept. A frozen function cannot see that the other end closed it;
/// shorter than AWS's own minute or so.
const IDLE: Duration = Duration::from_secs(20);
/// How this project is named in the requests that it makes; a function by its own name, so that an
/// account's trail tells who asked.
const APP_NAME: &str = "mycli";

/// The region is not set.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no region is set: AWS_REGION is missing or empty")]
pub struct NoRegion;

/// The configuration of a function, from the environment that Lambda gives it.
///
/// `AWS_ENDPOINT_URL`, and `AWS_ENDPOINT_URL_SQS` and the like for one service, lead to an
/// emulator.
///
/// # Errors
/// [`NoRegion`].
pub fn from_environment() -> Result<SdkConfig, NoRegion> {
    let region = variable("AWS_REGION")
        .or_else(|| variable("AWS_DEFAULT_REGION"))
        .ok_or(NoRegion)?;
    let credentials = SharedCredentialsProvider::new(EnvironmentVariableCredentialsProvider::new());
    Ok(configuration(
        region,
        credentials,
        variable("AWS_ENDPOINT_URL"),
    ))
}

/// The same with a region, credentials and endpoint of the caller's choice.
#[must_use]
pub fn configuration(
    region: String,
    credentials: SharedCredentialsProvider,
    endpoint: Option<String>,
) -> SdkConfig {
    let mut config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region))
        .credentials_provider(credentials)
        .http_client(http_client())
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        .timeout_config(timeouts())
        .service_config(ServiceEndpoints);
    let function = variable("AWS_LAMBDA_FUNCTION_NAME");
    config.set_app_name(AppName::new(function.unwrap_or_else(|| APP_NAME.to_owned())).ok());
    config.set_endpoint_url(endpoint);
    config.build()
}

/// How long calls may take.
#[must_use]
pub fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_attempt_timeout(ATTEMPT)
        .operation_timeout(OPERATION)
        .build()
}

/// An HTTP client whose root certificates are read beside the start of the process, not in it.
///
/// Reading the system's takes some 4 ms of a full core (144 certificates, release build), and a
/// function of 256 MB has a seventh of a core once its start is over: so it is begun here, on a
/// thread of its own, and the first call waits for what is left of it. The SDK's own client would
/// read them in the start, and make one more TLS connector (0.1 ms) for each client that is built
/// with it, only to see that it can; wrapped in a function it does not.
#[must_use]
pub fn http_client() -> SharedHttpClient {
    let tls = || Provider::Rustls(CryptoMode::Ring);
    let read_roots = move || drop(Connector::builder().tls_provider(tls()).build());
    // Without the thread the first call reads them.
    let _begun = thread::Builder::new()
        .name("root-certificates".into())
        .spawn(read_roots);
    let client = Builder::new()
        .pool_idle_timeout(IDLE)
        .tls_provider(tls())
        .build_https();
    http_client_fn(move |settings, components| client.http_connector(settings, components))
}

/// A service's client, made when it is first used: to make one takes about 0.2 ms of a full core,
/// and most invocations use two of the six that a function may need. Only the store's, which all of
/// them use, is made in a function's start. A clone is the same client.
#[derive(Clone)]
pub(crate) struct Lazily<C> {
    config: SdkConfig,
    make: fn(&SdkConfig) -> C,
    client: Arc<OnceLock<C>>,
}

impl<C> Lazily<C> {
    /// One of this configuration, made by this function.
    pub(crate) fn of(config: &SdkConfig, make: fn(&SdkConfig) -> C) -> Self {
        Self {
            config: config.clone(),
            make,
            client: Arc::default(),
        }
    }
}

impl<C> Deref for Lazily<C> {
    type Target = C;

    fn deref(&self) -> &C {
        self.client.get_or_init(|| (self.make)(&self.config))
    }
}

impl<C> fmt::Debug for Lazily<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lazily").finish_non_exhaustive()
    }
}

/// `AWS_ENDPOINT_URL_<SERVICE>`, as every AWS SDK has it (SDKs and Tools Reference Guide,
/// "Service-specific endpoints").
#[derive(Debug)]
struct ServiceEndpoints;

impl LoadServiceConfig for ServiceEndpoints {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        variable(&format!(
            "{}_{}",
            key.env(),
            key.service_id().to_uppercase().replace(' ', "_")
        ))
    }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
