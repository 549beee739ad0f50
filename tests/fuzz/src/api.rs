//! Request bodies of the API.

use aws_lambda_events::apigw::ApiGatewayProxyRequest;
use domain::key::Caller;
use domain::{
    api::{BULK_BODY_MAX, BulkRequest},
    attempt_secret::AttemptSecret,
    execution::Execution,
    git_access::GitAccess,
    id::ExecutionId,
    limit::CapacityPool,
    request::{Defaults, LaunchRequest, PRIORITY_MAX, RETRIES_MAX, SubmitRequest, Timeout},
    settings::TASK_API_URL_MAX,
    task,
    task::AttemptProof,
};

use crate::{is_fit_for_a_terminal, places};

/// Most characters of overrides that RunTask accepts (ECS API reference).
const OVERRIDES_MAX: usize = 8192;

pub(crate) const REQUESTS: &[&str] = &[
    r#"{"command":"true"}"#,
    r#"{"action":"exec","command":"terraform plan","repo":"https://github.com/acme/infra.git","branch":"main","image":"hashicorp/terraform:1.9","env":{"TF_IN_AUTOMATION":"1"},"secrets":["AWS_SECRET_ACCESS_KEY"],"timeout":"30m","cpu":512,"memory":"1024"}"#,
    r#"{"command":"x","arch":"arm64","capacity":"spot","lock":"l","group":"g","max_parallel":3,"priority":-7,"retries":2,"retry_on":["spot","host"],"name":"n","idempotency_key":"k","task_role":"arn:aws:iam::111122223333:role/mycli/default/r","registry_secret":"mycli/default/ghcr"}"#,
    r#"{"command":["printf","%s","a b"],"repo":"/srv/x","depth":"full","submodules":true,"lfs":false}"#,
    r#"{"command":"x","repo":"git@github.com:me/project.git","branch":"0123456789abcdef","timeout":90,"cpu":0.5}"#,
    r#"{"command":"x","repo":"file:///srv/my%20repo","image":"localhost:5000/a@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}"#,
];

pub(crate) const BULKS: &[&str] = &[
    r#"{"submission_id":"s","executions":[{"command":"true"}]}"#,
    r#"{"submission_id":"nightly-2026-11-24","first_index":500,"executions":[{"command":"make test"},{"command":"make lint","capacity":"on-demand","env":{"A":"b"}}]}"#,
];

fn read<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let mut request = ApiGatewayProxyRequest::default();
    request.body = Some(String::from_utf8_lossy(bytes).into_owned());
    match pipeline::http::body(&request, BULK_BODY_MAX) {
        Ok(body) => Some(body),
        Err(problem) => {
            assert!(
                (400..500).contains(&problem.status) && !problem.code.is_empty(),
                "{problem:?}"
            );
            is_fit_for_a_terminal(&problem.title);
            None
        }
    }
}

/// An accepted request is within every limit, and stays the same when it is sent, stored, and
/// submitted again.
pub(crate) fn request(bytes: &[u8]) {
    let Some(request) = read::<SubmitRequest>(bytes) else {
        return;
    };
    let sent = serde_json::to_string(&request).expect("it can be sent");
    assert_eq!(
        serde_json::from_str::<SubmitRequest>(&sent).expect("it is read"),
        request
    );
    for defaults in places() {
        check(&request, &defaults);
    }
}

pub(crate) fn check(request: &SubmitRequest, defaults: &Defaults) {
    match request.clone().validate(defaults) {
        Ok(launch) => is_within_limits(&launch, defaults),
        Err(faults) => {
            assert!(!faults.is_empty(), "a refusal has a reason");
            for fault in faults {
                is_fit_for_a_terminal(&fault.to_string());
            }
        }
    }
}

fn is_within_limits(launch: &LaunchRequest, defaults: &Defaults) {
    let command = launch.command.to_string();
    assert!(!command.trim().is_empty() && !command.contains('\0'));
    assert!(
        launch.priority.abs() <= PRIORITY_MAX
            && launch.retries <= RETRIES_MAX
            && launch.timeout <= Timeout::MAX
    );
    assert!(launch.env.iter().all(|(_, value)| !value.contains('\0')));
    let names = [&launch.lock, &launch.group, &launch.name]
        .into_iter()
        .flatten();
    assert!(
        names
            .clone()
            .all(|name| name.as_str().len() <= 64 && !name.as_str().starts_with('-'))
    );
    let words = launch.source.iter().flat_map(|source| {
        [
            Some(source.repo.as_str().to_owned()),
            source
                .reference
                .as_ref()
                .map(|reference| reference.as_str().to_owned()),
        ]
    });
    for word in words
        .flatten()
        .chain(launch.image.iter().map(ToString::to_string))
    {
        assert!(
            !word.starts_with('-') && !word.contains(char::is_control),
            "{word:?}"
        );
    }
    let id = ExecutionId::new(chrono::DateTime::UNIX_EPOCH, 0);
    let (secret, api) = (AttemptSecret::of_bits(1), "f".repeat(TASK_API_URL_MAX));
    let proof = match task::is_large(launch) {
        true => AttemptProof::Request(&secret, &api),
        false => AttemptProof::Secret(&secret, &api),
    };
    let overrides = task::overrides(launch, &id.attempt(1), proof, &GitAccess::default());
    let length = serde_json::to_string(&overrides)
        .expect("JSON")
        .chars()
        .count();
    assert!(length <= OVERRIDES_MAX, "{length} characters");
    let stored = serde_json::to_string(launch).expect("it can be stored");
    assert_eq!(
        serde_json::from_str::<LaunchRequest>(&stored).expect("it is read"),
        *launch
    );
    assert_eq!(
        SubmitRequest::from(launch).validate(defaults).as_ref(),
        Ok(launch),
        "asked for again it is the same"
    );
    let execution = Execution::submitted(
        id,
        launch.clone(),
        CapacityPool::Fargate,
        &Caller::local("me"),
        chrono::DateTime::UNIX_EPOCH,
    );
    let stored = serde_json::to_string(&execution).expect("it can be stored");
    assert_eq!(
        serde_json::from_str::<Execution>(&stored).expect("it is read"),
        execution
    );
}

/// Each accepted request of a bulk is recorded as it was read.
pub(crate) fn bulk(bytes: &[u8]) {
    let Some(bulk) = read::<BulkRequest>(bytes) else {
        return;
    };
    let sent = serde_json::to_string(&bulk).expect("it can be sent");
    assert_eq!(
        serde_json::from_str::<BulkRequest>(&sent).expect("it is read"),
        bulk
    );
    for request in &bulk.executions {
        places()
            .iter()
            .for_each(|defaults| check(request, defaults));
    }
}
