//! The AWS account and region, and the configuration with which its services are called.

use std::{
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_config::{
    AppName, BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig,
};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sts::error::ProvideErrorMetadata;
use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::{
            Intercept, context::BeforeDeserializationInterceptorContextRef, dyn_dispatch_hint,
        },
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::config_bag::ConfigBag;
use chrono::{DateTime, TimeDelta, Utc};

use crate::error::CallError;

/// Which credentials and region to use. As with `aws`, what is not given comes from the environment
/// and `~/.aws`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The region.
    pub region: Option<String>,
    /// The profile of `~/.aws`.
    pub profile: Option<String>,
    /// The URL of an emulator that stands in for all of AWS.
    pub endpoint_url: Option<String>,
}

/// An account that AWS has confirmed.
#[derive(Clone, Debug)]
pub struct Account {
    pub(crate) config: SdkConfig,
    /// The account's number: twelve digits.
    pub id: String,
    /// The ARN of the caller.
    pub arn: String,
    /// The region.
    pub region: String,
    /// The URL of an emulator.
    pub endpoint_url: Option<String>,
    /// How far this machine's clock is ahead of AWS's, in whole seconds; `None` if AWS's answer had
    /// no date.
    pub clock_ahead: Option<TimeDelta>,
}

/// Why an account cannot be used. `Display` says what to do.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// No region is configured anywhere.
    #[error("no region is set: give --region, or set AWS_REGION, or run `aws configure`")]
    NoRegion,
    /// The SSO session has expired.
    #[error("the AWS session has expired: sign in again with `{0}`")]
    Expired(String),
    /// No credentials are configured anywhere.
    #[error(
        "no AWS credentials were found: sign in with `aws sso login` or `aws configure`, name a profile with --profile, or set \
         AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY{0}"
    )]
    NoCredentials(String),
    /// AWS refuses the credentials.
    #[error("AWS does not accept these credentials: {message} ({code})")]
    Refused {
        /// AWS's error code.
        code: String,
        /// AWS's message.
        message: String,
    },
    /// The answer lacks fields that AWS always sends.
    #[error("the address answers, but not like AWS: check that {0} is right")]
    Foreign(String),
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// How often a call is tried. A person waits for the result, so there is an upper limit; but one
/// lost answer must not fail a deployment.
const TRIES: u32 = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);

impl Account {
    /// Finds credentials and region as `aws` does, and asks AWS whose they are.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn open(access: &Access) -> Result<Self, AccountError> {
        let config = load(access).await;
        let region = config
            .region()
            .map(ToString::to_string)
            .ok_or(AccountError::NoRegion)?;
        let clock = ServerClock::default();
        let sts = aws_sdk_sts::Client::new(&config);
        let asked = sts
            .get_caller_identity()
            .customize()
            .interceptor(clock.clone())
            .send()
            .await;
        let identity = asked.map_err(|error| refused(error, access))?;
        let address =
            || AccountError::Foreign(config.endpoint_url().unwrap_or("the endpoint").to_owned());
        Ok(Self {
            id: identity.account().ok_or_else(address)?.to_owned(),
            arn: identity.arn().ok_or_else(address)?.to_owned(),
            region,
            endpoint_url: config.endpoint_url().map(str::to_owned),
            clock_ahead: clock.ahead(),
            config,
        })
    }

    /// Returns the name of the user, role or session, without the rest of the ARN.
    #[must_use]
    pub fn who(&self) -> &str {
        self.arn
            .rsplit_once(':')
            .map_or(self.arn.as_str(), |(_, resource)| resource)
    }

    /// Returns the API's URL. With AWS it is the stack's output; an emulator serves the same API
    /// under its own URL.
    #[must_use]
    pub fn api_address(&self, output: &str) -> String {
        let own = self
            .endpoint_url
            .as_deref()
            .and_then(|emulator| emulated(emulator, output));
        own.unwrap_or_else(|| output.trim_end_matches('/').to_owned())
    }
}

/// Returns the URL at which an emulator serves
/// `https://<api>.execute-api.<region>.amazonaws.com/<stage>`.
fn emulated(emulator: &str, output: &str) -> Option<String> {
    let (host, stage) = output
        .trim_end_matches('/')
        .strip_prefix("https://")?
        .split_once('/')?;
    let (api, _) = host.split_once(".execute-api.")?;
    Some(format!(
        "{}/_aws/execute-api/{api}/{stage}",
        emulator.trim_end_matches('/')
    ))
}

async fn load(access: &Access) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(aws::connect::http_client())
        .retry_config(RetryConfig::standard().with_max_attempts(TRIES))
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                .build(),
        );
    if let Ok(name) = AppName::new("mycli") {
        loader = loader.app_name(name);
    }
    if let Some(region) = &access.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(profile) = &access.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(url) = &access.endpoint_url {
        loader = loader.endpoint_url(url);
    }
    loader.load().await
}

type IdentityError = aws_sdk_sts::error::SdkError<
    aws_sdk_sts::operation::get_caller_identity::GetCallerIdentityError,
>;

fn refused(error: IdentityError, access: &Access) -> AccountError {
    let code = error
        .as_service_error()
        .and_then(ProvideErrorMetadata::code)
        .map(str::to_owned);
    let sent = !matches!(
        error,
        aws_sdk_sts::error::SdkError::ConstructionFailure(_)
            | aws_sdk_sts::error::SdkError::DispatchFailure(_)
    );
    let no_credentials = is_about_credentials(&error);
    let call = CallError::of("ask AWS who we are")(error);
    match code {
        Some(code) if code.starts_with("ExpiredToken") => AccountError::Expired(sign_in(access)),
        Some(code) => AccountError::Refused {
            code,
            message: call.message,
        },
        None if sent => AccountError::Call(call),
        None => unsigned(call, no_credentials, access),
    }
}

/// Explains a call that could not be signed or did not arrive.
fn unsigned(call: CallError, no_credentials: bool, access: &Access) -> AccountError {
    if !no_credentials {
        return AccountError::Call(call);
    }
    let text = call.message.to_lowercase();
    if text.contains("sso") || (text.contains("token") && !text.contains("imds")) {
        return AccountError::Expired(sign_in(access));
    }
    let emulator = access
        .endpoint_url
        .as_ref()
        .map(|_| " (an emulator takes any: `test` and `test`)");
    let tried = if text.contains("imds") {
        String::new()
    } else {
        format!(".\nTried last: {}", call.message)
    };
    AccountError::NoCredentials(format!("{}{tried}", emulator.unwrap_or_default()))
}

/// Whether the cause is missing credentials and not the connection.
fn is_about_credentials(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<CredentialsError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn sign_in(access: &Access) -> String {
    let profile = access
        .profile
        .as_ref()
        .map(|profile| format!(" --profile {profile}"));
    format!("aws sso login{}", profile.unwrap_or_default())
}

/// Records the `Date` header of an answer, successful or not, and the local time at which it came.
#[derive(Clone, Debug, Default)]
struct ServerClock(Arc<Mutex<Option<Clocks>>>);

/// The readings of two clocks at the same moment.
#[derive(Clone, Copy, Debug)]
struct Clocks {
    theirs: DateTime<Utc>,
    ours: DateTime<Utc>,
}

impl ServerClock {
    fn ahead(&self) -> Option<TimeDelta> {
        let noted = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.map(|noted| TimeDelta::seconds((noted.ours - noted.theirs).num_seconds()))
    }
}

#[dyn_dispatch_hint]
impl Intercept for ServerClock {
    fn name(&self) -> &'static str {
        "ServerClock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context
            .response()
            .headers()
            .get("date")
            .and_then(|text| DateTime::parse_from_rfc2822(text).ok());
        if let Some(date) = date {
            let noted = Clocks {
                theirs: date.to_utc(),
                ours: Utc::now(),
            };
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(noted);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emulator_serves_the_api_under_its_own_address() {
        let output = "https://a1b2c3.execute-api.eu-west-1.amazonaws.com/prod";
        let at = |url: &str| emulated(url, output);
        assert_eq!(
            at("http://localhost:4566/").unwrap(),
            "http://localhost:4566/_aws/execute-api/a1b2c3/prod"
        );
        assert_eq!(
            emulated("http://localhost:4566", "http://localhost:4566/own"),
            None
        );
    }

    #[test]
    fn what_the_sdk_says_leads_to_what_to_do() {
        let access = Access {
            profile: Some("work".into()),
            ..Access::default()
        };
        let said = |text: &str, no_credentials| {
            unsigned(CallError::new("ask", text), no_credentials, &access).to_string()
        };
        assert!(
            said("the SSO token has expired and cannot be refreshed", true)
                .contains("aws sso login --profile work")
        );
        assert!(said("no providers in chain provided credentials", true).contains("aws configure"));
        assert!(
            said("profile `work` was not defined", true).contains("profile `work` was not defined")
        );
        assert!(said("failed to load IMDS session token", true).ends_with("AWS_SECRET_ACCESS_KEY"));
        assert_eq!(
            said("Connection refused (os error 111)", false),
            "failed to ask: Connection refused (os error 111)"
        );
    }
}
