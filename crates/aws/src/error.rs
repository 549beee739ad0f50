//! AWS's errors, told apart in one place for every service.

use std::{error::Error, fmt, sync::Arc};

use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use domain::error::{PortError, Rejected, RejectionKind};

/// The meaning of a failed call for a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Nothing was done, and the same call is right later: the caller was too fast, or its
    /// credentials are just being replaced.
    Wait,
    /// Nothing was done, and the same call stays refused until something else changes.
    Change,
    /// There is no usable answer (a cut connection, a timeout, the server's own fault, garbage), so
    /// the call may have been carried out.
    Ask,
}

/// A call that failed: the service's own code and words, and what they mean. Contains nothing of
/// the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The error's code, if the service gave one: `ThrottlingException`.
    pub code: Option<String>,
    /// The service's message, or the failure on the way to it.
    pub words: String,
    /// The remedy of the failure.
    pub remedy: Remedy,
}

/// Codes for "too fast", whatever the status is (the retry behaviour that AWS's SDKs share,
/// "Throttling error codes").
const TOO_FAST: [&str; 12] = [
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
];

/// Codes for credentials or a clock that are not good now (AWS's common errors). A function is
/// given new credentials, and the service did not look at the request. If these were final errors,
/// a minute of bad credentials would fail a whole backlog for good.
const NOT_NOW: [&str; 8] = [
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "RequestExpired",
    "RequestTimeTooSkewed",
    "UnrecognizedClientException",
];

/// Codes for a caller that lacks the permission (AWS's common errors; the others are the spellings
/// of DynamoDB, ECS, SQS and S3).
const DENIED: [&str; 6] = [
    "AccessDenied",
    "AccessDeniedException",
    "AuthorizationError",
    "NotAuthorized",
    "OptInRequired",
    "UnauthorizedOperation",
];

/// Codes for a resource that does not exist (the services' API references).
const MISSING: [&str; 6] = [
    "AWS.SimpleQueueService.NonExistentQueue",
    "ClusterNotFoundException",
    "NoSuchBucket",
    "QueueDoesNotExist",
    "ResourceNotFoundException",
    "TableNotFoundException",
];

/// Codes for a service's own fault, whatever the status is.
const SERVERS_FAULT: [&str; 6] = [
    "InternalError",
    "InternalFailure",
    "InternalServerError",
    "InternalServerErrorException",
    "ServerException",
    "ServiceUnavailable",
];

impl Fault {
    /// Reads the error of any operation of any service.
    pub fn of<E: ProvideErrorMetadata + Error + 'static>(
        error: &SdkError<E, HttpResponse>,
    ) -> Self {
        match error {
            SdkError::ServiceError(answer) => {
                let status = answer.raw().status().as_u16();
                Self::answered(
                    status,
                    answer.err().code(),
                    answer.err().message().unwrap_or_default(),
                )
            }
            SdkError::ResponseError(answer) => {
                Self::answered(answer.raw().status().as_u16(), None, &chain(error))
            }
            // Nothing was sent, and building the same request would fail again.
            SdkError::ConstructionFailure(_) => Self {
                code: None,
                words: chain(error),
                remedy: Remedy::Change,
            },
            _ => Self {
                code: None,
                words: chain(error),
                remedy: Remedy::Ask,
            },
        }
    }

    /// Reads an answer by its status, code and message.
    #[must_use]
    pub fn answered(status: u16, code: Option<&str>, message: &str) -> Self {
        let is = |codes: &[&str]| code.is_some_and(|code| codes.contains(&code));
        let remedy = match status {
            _ if is(&TOO_FAST) || is(&NOT_NOW) || is_throttle_in_disguise(message) => Remedy::Wait,
            429 => Remedy::Wait,
            _ if is(&SERVERS_FAULT) => Remedy::Ask,
            // A client error with an unknown code: the service has looked at the request and
            // refuses it.
            400..=499 if status != 408 && code.is_some() => Remedy::Change,
            _ => Remedy::Ask,
        };
        let words = if message.is_empty() {
            format!("status {status}")
        } else {
            message.to_owned()
        };
        Self {
            code: code.map(str::to_owned),
            words,
            remedy,
        }
    }

    /// The fault for a missing part of an answer.
    #[must_use]
    pub(crate) fn no_answer() -> Self {
        Self {
            code: None,
            words: "no answer".to_owned(),
            remedy: Remedy::Ask,
        }
    }

    /// Whether the code is this one.
    #[must_use]
    pub fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    /// The port's error: unavailable if a retry may help, otherwise rejected.
    #[must_use]
    pub fn of_service(self, service: &'static str) -> PortError {
        match self.remedy {
            Remedy::Wait | Remedy::Ask => PortError::unavailable(service, self),
            Remedy::Change => Rejected {
                service,
                rejection: self.rejection(),
                source: Arc::new(self),
            }
            .into(),
        }
    }

    fn rejection(&self) -> RejectionKind {
        let is = |codes: &[&str]| {
            self.code
                .as_deref()
                .is_some_and(|code| codes.contains(&code))
        };
        if is(&DENIED) {
            RejectionKind::Denied {
                permission: self.permission(),
            }
        } else if is(&MISSING) {
            RejectionKind::Missing
        } else {
            RejectionKind::Invalid
        }
    }

    /// The action named in a refusal by IAM: "User: … is not authorized to perform:
    /// dynamodb:PutItem on resource: …" (IAM User Guide, "Troubleshoot access denied error
    /// messages").
    fn permission(&self) -> Option<String> {
        let (_, rest) = self.words.split_once("not authorized to perform: ")?;
        let action = rest.split([' ', ',', ';']).next()?.trim_end_matches('.');
        action.contains(':').then(|| action.to_owned())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) => write!(f, "{code}: {}", self.words),
            None => f.write_str(&self.words),
        }
    }
}

impl Error for Fault {}

/// Makes the port's error from an operation's, for `map_err`.
pub(crate) fn failed<E: ProvideErrorMetadata + Error + 'static>(
    service: &'static str,
) -> impl Fn(SdkError<E, HttpResponse>) -> PortError {
    move |error| Fault::of(&error).of_service(service)
}

/// Whether the message shows that another service throttled this one. Such errors come under codes
/// that mean something else: ECS's `InvalidParameterException` for EC2's "Request limit exceeded"
/// (AWS-FACTS §1), and its `ClientException` for two registrations of one family at a time.
fn is_throttle_in_disguise(message: &str) -> bool {
    let lower = message.to_lowercase();
    [
        "request limit exceeded",
        "requestlimitexceeded",
        "rate exceeded",
        "throttl",
        "too many concurrent attempts",
    ]
    .iter()
    .any(|words| lower.contains(words))
}

/// The texts of an error and its causes, each once. Their `Debug` would contain the raw answer.
fn chain(error: &(dyn Error + 'static)) -> String {
    let texts =
        std::iter::successors(Some(error), |error| (*error).source()).map(ToString::to_string);
    let mut words: Vec<String> = Vec::new();
    for text in texts {
        if !words.iter().any(|known| known.contains(&text)) {
            words.push(text);
        }
    }
    words.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remedy(status: u16, code: &str, message: &str) -> Remedy {
        Fault::answered(status, Some(code), message).remedy
    }

    #[test]
    fn throttles_are_known_by_code_by_status_and_by_words() {
        assert_eq!(
            remedy(400, "ThrottlingException", "Rate exceeded"),
            Remedy::Wait
        );
        assert_eq!(remedy(400, "ThrottlingException", ""), Remedy::Wait);
        assert_eq!(
            remedy(503, "SlowDown", "Please reduce your request rate."),
            Remedy::Wait
        );
        assert_eq!(remedy(429, "Whatever", ""), Remedy::Wait);
        let ec2 = "Error retrieving security group information for [sg-1]: Request limit exceeded. (ErrorCode: RequestLimitExceeded)";
        assert_eq!(remedy(400, "InvalidParameterException", ec2), Remedy::Wait);
        let family =
            "Too many concurrent attempts to create a new revision of the specified family.";
        assert_eq!(remedy(400, "ClientException", family), Remedy::Wait);
    }

    #[test]
    fn a_refusal_is_one_until_something_changes() {
        assert_eq!(
            remedy(400, "InvalidParameterException", "Invalid CPU"),
            Remedy::Change
        );
        assert_eq!(
            remedy(400, "AccessDeniedException", "not authorized"),
            Remedy::Change
        );
    }

    #[test]
    fn credentials_that_are_not_good_now_may_be_later() {
        assert_eq!(
            remedy(
                400,
                "ExpiredTokenException",
                "The security token is expired"
            ),
            Remedy::Wait
        );
    }

    #[test]
    fn what_is_no_answer_may_have_been_done() {
        assert_eq!(remedy(500, "ServerException", ""), Remedy::Ask);
        assert_eq!(remedy(400, "ServerException", ""), Remedy::Ask);
        assert_eq!(Fault::answered(502, None, "").remedy, Remedy::Ask);
        assert_eq!(
            Fault::answered(400, None, "").remedy,
            Remedy::Ask,
            "a proxy's page, not the service's word"
        );
        assert_eq!(
            Fault::answered(408, Some("RequestTimeout"), "").remedy,
            Remedy::Ask
        );
    }

    #[test]
    fn a_request_that_cannot_be_built_is_not_worth_another_try() {
        type Fails = SdkError<aws_sdk_dynamodb::operation::get_item::GetItemError, HttpResponse>;
        let fault = Fault::of(&Fails::construction_failure("no such field"));
        assert_eq!(fault.remedy, Remedy::Change);
        assert!(!fault.of_service("the store").may_pass());
        assert_eq!(
            Fault::of(&Fails::timeout_error("no answer")).remedy,
            Remedy::Ask
        );
    }

    #[test]
    fn a_denial_names_the_missing_permission() {
        let words = "User: arn:aws:sts::1:assumed-role/a/b is not authorized to perform: sqs:SendMessage on resource: arn:aws:sqs:q \
                     because no identity-based policy allows the sqs:SendMessage action";
        let error =
            Fault::answered(400, Some("AccessDeniedException"), words).of_service("the queue");
        assert_eq!(
            error.to_string(),
            format!(
                "the queue denied access, the permission sqs:SendMessage is missing: AccessDeniedException: {words}"
            )
        );
        let PortError::Rejected(rejected) = &error else {
            panic!("{error}")
        };
        assert_eq!(
            rejected.rejection,
            RejectionKind::Denied {
                permission: Some("sqs:SendMessage".into())
            }
        );
        let unnamed = Fault::answered(400, Some("AccessDenied"), "Access Denied").of_service("S3");
        assert_eq!(
            unnamed.to_string(),
            "S3 denied access: AccessDenied: Access Denied"
        );
    }

    #[test]
    fn each_kind_of_answer_is_an_error_of_its_own() {
        let kind = |status, code| Fault::answered(status, Some(code), "no").of_service("the store");
        assert!(kind(400, "ThrottlingException").may_pass());
        assert!(kind(500, "InternalServerError").may_pass());
        let rejection = |code| match kind(400, code) {
            PortError::Rejected(rejected) => rejected.rejection,
            other => panic!("{other}"),
        };
        assert_eq!(rejection("ValidationException"), RejectionKind::Invalid);
        assert_eq!(
            rejection("ResourceNotFoundException"),
            RejectionKind::Missing
        );
    }

    #[test]
    fn the_cause_is_kept() {
        let error =
            Fault::answered(400, Some("ValidationException"), "too long").of_service("the store");
        let cause =
            std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<Fault>());
        assert_eq!(
            cause.and_then(|fault| fault.code.as_deref()),
            Some("ValidationException")
        );
    }
}
