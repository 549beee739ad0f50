//! The submit function: every route that writes. It records and sends messages; it never touches
//! ECS.

use aws_lambda_events::apigw::{ApiGatewayProxyRequest, ApiGatewayProxyResponse};
use chrono::TimeDelta;
use domain::{
    Timestamp,
    api::{Accepted, BULK_BODY_MAX, BULK_EVENT_MAX, KeyView, Problem, length_in_event},
    execution::{Execution, ExecutionStatus},
    id::{ExecutionId, Submission},
    key::{ApiKey, Caller, Role},
    message::Message,
    ports::{Claim, Clock, Created, Entropy, Keys, PortError, Queue, Secrets, WriteStore},
    principal::Principal,
    request::{Changes, FieldError, LaunchRequest, Name, SubmitRequest},
    settings::Settings,
    transition::CancelDecision,
};
use serde::{Deserialize, Serialize};

use crate::{
    advance::{Changed, advance_from},
    auth::{self, Auth},
    http::{self, Route},
    intake::{CLAIM, Intake, backlog_of},
    log, lookup,
    unreadable::passed_over,
};

mod audit;
mod bulk;
mod groups;

use audit::AuditFacts;

/// The largest body of `POST /execute`, in bytes: command and variables of 256 KiB
/// ([`REQUEST_BYTES_MAX`](domain::request::REQUEST_BYTES_MAX)), of which nearly every byte takes six
/// in JSON.
pub const BODY_MAX: usize = 2 * 1024 * 1024;
/// How long the old key still works after a rotation (DESIGN §7).
const OLD_KEY_GOOD: TimeDelta = TimeDelta::hours(24);

/// The submit function.
#[derive(Debug)]
pub struct Submit<'a, S, K, Q, X, A> {
    /// Where executions are recorded.
    pub store: &'a S,
    /// The API keys.
    pub keys: &'a K,
    /// Where wakeups are sent.
    pub queue: &'a Q,
    /// Which secrets are set.
    pub secrets: &'a X,
    /// Clock and randomness.
    pub system: &'a A,
    /// Verifies keys.
    pub auth: &'a Auth,
    /// The installation's settings.
    pub settings: &'a Settings,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    name: String,
    role: Role,
}

/// The body of `POST /keys/{name}/rotate`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    /// Whether the old key stops working at once.
    #[serde(default)]
    now: bool,
}

#[derive(Serialize)]
struct RotatedKeyAnswer<'a> {
    name: &'a str,
    role: Role,
    /// The new key. It is shown only this once.
    key: &'a str,
    /// Until when the old key works; `null` if it does not.
    old_key_until: Option<Timestamp>,
}

#[derive(Serialize)]
struct NewKeyAnswer<'a> {
    name: &'a str,
    role: Role,
    /// The new key. It is shown only this once.
    key: &'a str,
}

impl<S: WriteStore, K: Keys, Q: Queue, X: Secrets, A: Clock + Entropy> Submit<'_, S, K, Q, X, A> {
    /// Answers an event of API Gateway.
    pub async fn handle(&self, request: &ApiGatewayProxyRequest) -> ApiGatewayProxyResponse {
        let work = async {
            let now = self.system.now();
            let caller = self.auth.admit(request, self.keys, now).await?;
            self.audited(&caller, request).await
        };
        http::answered(request, work).await
    }

    /// Answers a request of a caller already known.
    pub async fn answer(
        &self,
        caller: &Caller,
        request: &ApiGatewayProxyRequest,
    ) -> ApiGatewayProxyResponse {
        http::answered(request, self.audited(caller, request)).await
    }

    /// Carries out a request, and writes its audit line.
    async fn audited(
        &self,
        caller: &Caller,
        request: &ApiGatewayProxyRequest,
    ) -> Result<ApiGatewayProxyResponse, Problem> {
        log::note_caller(caller);
        let route = Route::of(request)?;
        let mut facts = AuditFacts::of(&route);
        let outcome = self.route(caller, &route, request, &mut facts).await;
        facts.write(caller, &route, outcome.as_ref().err());
        outcome
    }

    async fn route(
        &self,
        caller: &Caller,
        route: &Route,
        request: &ApiGatewayProxyRequest,
        facts: &mut AuditFacts,
    ) -> Result<ApiGatewayProxyResponse, Problem> {
        // This check comes first, so that a caller without the role learns nothing about the
        // request format.
        auth::require(caller, route.role())?;
        http::only_parameters(request, &[])?;
        match route {
            Route::Execute => {
                self.execute(caller, http::body(request, BODY_MAX)?, facts)
                    .await
            }
            Route::Bulk => {
                refuse_what_no_event_holds(request)?;
                self.bulk(caller, http::body(request, BULK_BODY_MAX)?, facts)
                    .await
            }
            Route::Cancel(id) => self.cancel(caller, id, facts).await,
            Route::CancelGroup(group) => self.cancel_group(caller, group).await,
            Route::RerunGroup(group) => {
                self.rerun_group(caller, group, http::optional_body(request, BODY_MAX)?)
                    .await
            }
            Route::Rerun(id) => {
                let changes = http::optional_body(request, BODY_MAX)?;
                self.rerun(caller, id, changes, facts).await
            }
            Route::ListKeys => self.list_keys().await,
            Route::CreateKey => self.create_key(http::body(request, BODY_MAX)?, facts).await,
            Route::RevokeKey(name) => self.revoke_key(name).await,
            Route::RotateKey(name) => {
                let rotation = http::optional_body(request, BODY_MAX)?;
                self.rotate_key(name, rotation, facts).await
            }
            Route::List
            | Route::Get(_)
            | Route::Logs(_)
            | Route::Artifacts(_)
            | Route::Upload(_)
            | Route::AttemptRequest(_)
            | Route::Group(_)
            | Route::Backlogs
            | Route::Stats
            | Route::Whoami
            | Route::Version => Err(Problem::new(
                404,
                "no_such_path",
                "this function serves only requests that write",
            )),
        }
    }

    async fn execute(
        &self,
        caller: &Caller,
        request: SubmitRequest,
        facts: &mut AuditFacts,
    ) -> Result<ApiGatewayProxyResponse, Problem> {
        let request = self
            .intake()
            .validated(caller, request)
            .await
            .map_err(|e| http::failed(&e))?;
        let request = request.map_err(Problem::invalid)?;
        let claim = request
            .idempotency_key
            .as_ref()
            .map(|key| self.intake().claim(caller, key.as_str(), &request));
        let (created, execution) = self
            .record(caller, request, claim.as_ref(), facts)
            .await
            .map_err(|e| http::failed(&e))?;
        match created {
            Created::New => Ok(accepted(&execution.id, execution.status())),
            Created::Existing(id) => self.existing(id).await,
            Created::Mismatch(id) => Err(Problem::new(
                409,
                "idempotency_key_reused",
                format!(
                    "this idempotency_key was used for another request within 24 hours ({id}); use a new one"
                ),
            )),
        }
    }

    /// Copies the request of a run, whatever its status, and goes on as if the caller had sent the
    /// copy with the changes.
    async fn rerun(
        &self,
        caller: &Caller,
        id: &str,
        changes: Changes,
        facts: &mut AuditFacts,
    ) -> Result<ApiGatewayProxyResponse, Problem> {
        let id = lookup::resolve(self.store, id).await?;
        let before = self.store.load(&id).await.map_err(|e| http::failed(&e))?;
        let before = before.ok_or_else(|| lookup::not_found(id.as_str()))?;
        self.execute(caller, changes.applied_to(&before.request), facts)
            .await
    }

    /// Records an execution and then sends a wakeup for its backlog. Accepted is durable: if the
    /// wakeup is lost, the sweep sends another.
    async fn record(
        &self,
        caller: &Caller,
        request: LaunchRequest,
        claim: Option<&Claim>,
        facts: &mut AuditFacts,
    ) -> Result<(Created, Execution), PortError> {
        let (created, execution) = self
            .intake()
            .record(caller, request, claim, self.system.now())
            .await?;
        // Whatever fails from here on, it was accepted.
        facts.recorded(&created, &execution.id);
        if created == Created::New {
            let wakeup = Message::Wakeup {
                backlog: backlog_of(&execution),
                id: Some(execution.id.clone()),
            };
            self.queue.send(vec![wakeup.into()]).await?;
        }
        Ok((created, execution))
    }

    fn intake(&self) -> Intake<'_, S, X, A> {
        let Self {
            store,
            secrets,
            system,
            settings,
            ..
        } = self;
        Intake {
            store,
            secrets,
            system,
            settings,
        }
    }

    /// Returns the submission as it was first opened.
    async fn opened(&self, caller: &Caller, id: &str) -> Result<Submission, PortError> {
        let now = self.system.now();
        self.store
            .open_submission(&caller.principal, id, now, now + CLAIM)
            .await
    }

    async fn existing(&self, id: ExecutionId) -> Result<ApiGatewayProxyResponse, Problem> {
        // An execution that this release cannot read was accepted all the same.
        let found = passed_over(self.store.load(&id).await).map_err(|e| http::failed(&e))?;
        Ok(accepted(
            &id,
            found.map_or(ExecutionStatus::Queued, |execution| execution.status()),
        ))
    }

    async fn cancel(
        &self,
        caller: &Caller,
        id: &str,
        facts: &mut AuditFacts,
    ) -> Result<ApiGatewayProxyResponse, Problem> {
        let id = lookup::resolve(self.store, id).await?;
        facts.execution_id = Some(id.clone());
        let failed = |error: PortError| http::failed(&error);
        let now = self.system.now();
        let before = self.store.load(&id).await.map_err(failed)?;
        let before = before.ok_or_else(|| lookup::not_found(id.as_str()))?;
        let cancelled = |execution: &Execution| match execution.cancelled(caller, now) {
            CancelDecision::Changed(after) => Some(*after),
            CancelDecision::Final(_) | CancelDecision::Asked | CancelDecision::NotKnown(_) => None,
        };
        let changed = advance_from(self.store, self.queue, now, before, cancelled)
            .await
            .map_err(failed)?;
        let execution = match changed {
            Changed::Yes { after, .. } => *after,
            Changed::No(None) => return Err(lookup::not_found(id.as_str())),
            Changed::No(Some(execution)) => match execution.cancelled(caller, now) {
                CancelDecision::Final(status) => {
                    return Err(Problem::new(
                        409,
                        "already_final",
                        format!("{id} is {status} already; there is nothing to cancel"),
                    ));
                }
                CancelDecision::NotKnown(status) => {
                    return Err(Problem::new(
                        409,
                        "status_not_known",
                        format!(
                            "{id} is {status}, which this release of mycli does not know; cancel it with a newer one"
                        ),
                    ));
                }
                CancelDecision::Asked | CancelDecision::Changed(_) => *execution,
            },
        };
        if execution.end().is_none() {
            let check = Message::Check { id: id.clone() }.into();
            self.queue.send(vec![check]).await.map_err(failed)?;
        }
        Ok(accepted(&id, execution.status()))
    }

    async fn list_keys(&self) -> Result<ApiGatewayProxyResponse, Problem> {
        let keys = self.keys.list_keys().await.map_err(|e| http::failed(&e))?;
        let now = self.system.now();
        let views: Vec<_> = keys.iter().map(|key| KeyView::new(key, now)).collect();
        Ok(http::json(200, &serde_json::json!({ "keys": views })))
    }

    async fn create_key(
        &self,
        new: NewKey,
        facts: &mut AuditFacts,
    ) -> Result<ApiGatewayProxyResponse, Problem> {
        let name: Name = new.name.parse().map_err(|e: domain::request::NameError| {
            Problem::invalid(vec![FieldError {
                field: "name".into(),
                message: e.to_string(),
            }])
        })?;
        facts.target = Some(name.to_string());
        facts.new_role = Some(new.role);
        let key = ApiKey::from_entropy(self.entropy_of_a_key());
        let added = self
            .add(&key, name.as_str(), new.role, self.system.now())
            .await
            .map_err(|e| http::failed(&e))?;
        if !added {
            return Err(Problem::new(
                409,
                "name_taken",
                format!("there is a key '{name}'; revoke it first or use another name"),
            ));
        }
        Ok(http::json(
            201,
            &NewKeyAnswer {
                name: name.as_str(),
                role: new.role,
                key: key.expose(),
            },
        ))
    }

    fn entropy_of_a_key(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.system.bits().to_le_bytes());
        bytes[16..].copy_from_slice(&self.system.bits().to_le_bytes());
        bytes
    }

    async fn add(
        &self,
        key: &ApiKey,
        name: &str,
        role: Role,
        now: Timestamp,
    ) -> Result<bool, PortError> {
        let principal = Principal::new(now, self.system.bits());
        self.keys
            .add_key(&auth::record(key, name, role, principal, now).await?)
            .await
    }

    /// Replaces a key with a new one for the same principal. The old key works for one more day, so
    /// that its users can be told, unless the caller wants it to stop at once.
    async fn rotate_key(
        &self,
        name: &str,
        rotation: Rotation,
        facts: &mut AuditFacts,
    ) -> Result<ApiGatewayProxyResponse, Problem> {
        let now = self.system.now();
        let keys = self.keys.list_keys().await.map_err(|e| http::failed(&e))?;
        let Some(old) = keys.into_iter().find(|key| key.name == name) else {
            return Err(no_such_key(name));
        };
        let key = ApiKey::from_entropy(self.entropy_of_a_key());
        let fresh = auth::record(&key, name, old.role, old.principal(), now)
            .await
            .map_err(|e| http::failed(&e))?;
        let until = if rotation.now {
            now
        } else {
            now + OLD_KEY_GOOD
        };
        facts.new_role = Some(old.role);
        facts.old_key_until = Some(until);
        let (old, new) = old.rotated(fresh, until, now);
        let rotated = self
            .keys
            .rotate_key(&old, &new)
            .await
            .map_err(|e| http::failed(&e))?;
        if !rotated {
            let title = format!(
                "the key '{}' was rotated or revoked meanwhile; look with `mycli keys list`",
                new.name
            );
            return Err(Problem::new(409, "key_changed", title));
        }
        let answer = RotatedKeyAnswer {
            name: &new.name,
            role: new.role,
            key: key.expose(),
            old_key_until: (!rotation.now).then_some(until),
        };
        Ok(http::json(201, &answer))
    }

    async fn revoke_key(&self, name: &str) -> Result<ApiGatewayProxyResponse, Problem> {
        let was_there = match name.len() <= lookup::TEXT_MAX {
            true => self
                .keys
                .remove_key(name)
                .await
                .map_err(|e| http::failed(&e))?,
            false => false,
        };
        if was_there {
            return Ok(http::json(200, &serde_json::json!({ "revoked": name })));
        }
        Err(no_such_key(name))
    }
}

/// Refuses a body that is mostly quotes or backslashes, because Lambda would refuse its event. One
/// machine has no such events but the same limit.
fn refuse_what_no_event_holds(request: &ApiGatewayProxyRequest) -> Result<(), Problem> {
    let length = length_in_event(request.body.as_deref().unwrap_or_default());
    if length <= BULK_EVENT_MAX {
        return Ok(());
    }
    let title = format!(
        "the body takes {length} bytes once its quotes and backslashes are escaped, the limit is {BULK_EVENT_MAX}: send fewer lines at once"
    );
    Err(Problem::new(413, "body_too_large", title))
}

fn no_such_key(name: &str) -> Problem {
    Problem::new(
        404,
        "no_such_key",
        format!("there is no key '{}'", lookup::shown(name)),
    )
}

fn accepted(id: &ExecutionId, status: ExecutionStatus) -> ApiGatewayProxyResponse {
    http::json(
        202,
        &Accepted {
            execution_id: id.clone(),
            status,
        },
    )
}
