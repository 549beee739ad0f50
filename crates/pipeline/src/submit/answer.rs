//! The answers to requests that write.

use aws_lambda_events::apigw::ApiGatewayProxyResponse;
use domain::{
    Timestamp,
    api::{Accepted, BulkAnswer, GroupView, KeyView},
    key::{ApiKey, Role},
};
use serde::{Serialize, Serializer};

use crate::http;

/// The answer to a request that writes.
pub(super) enum WriteAnswer {
    /// One execution was submitted, or its cancellation was asked for.
    Execution(Accepted),
    /// Lines of a submission were taken.
    Bulk {
        /// The submission's id.
        submission_id: String,
        /// The result of each line.
        lines: BulkAnswer,
    },
    /// Work on a group begins.
    Group(GroupView),
    /// All keys.
    Keys(Vec<KeyView>),
    /// A key was made.
    NewKey(NewKeyAnswer),
    /// A key was replaced by a new one.
    RotatedKey(RotatedKeyAnswer),
    /// A key was revoked.
    RevokedKey(String),
}

#[derive(Serialize)]
pub(super) struct NewKeyAnswer {
    pub(super) name: String,
    pub(super) role: Role,
    /// The new key. It is shown only this once.
    #[serde(serialize_with = "exposed")]
    pub(super) key: ApiKey,
}

#[derive(Serialize)]
pub(super) struct RotatedKeyAnswer {
    pub(super) name: String,
    pub(super) role: Role,
    /// The new key. It is shown only this once.
    #[serde(serialize_with = "exposed")]
    pub(super) key: ApiKey,
    /// Until when the old key works; `null` if it does not.
    pub(super) old_key_until: Option<Timestamp>,
}

fn exposed<S: Serializer>(key: &ApiKey, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(key.expose())
}

impl WriteAnswer {
    /// Returns the HTTP response with this answer.
    pub(super) fn response(&self) -> ApiGatewayProxyResponse {
        match self {
            Self::Execution(accepted) => http::json(202, accepted),
            Self::Bulk { lines, .. } => http::json(202, lines),
            Self::Group(view) => http::json(202, view),
            Self::Keys(views) => http::json(200, &serde_json::json!({ "keys": views })),
            Self::NewKey(answer) => http::json(201, answer),
            Self::RotatedKey(answer) => http::json(201, answer),
            Self::RevokedKey(name) => http::json(200, &serde_json::json!({ "revoked": name })),
        }
    }
}
