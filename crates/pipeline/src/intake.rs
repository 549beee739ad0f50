//! Taking a request in: checking it against the settings and against what it names, and recording
//! it. The submit function does that for the API, the launcher for reruns of groups.

use std::collections::{BTreeMap, btree_map::Entry};

use chrono::TimeDelta;
use domain::{
    Timestamp,
    error::Corrupt,
    execution::Execution,
    id::ExecutionId,
    key::Caller,
    limit::{CapacityPool, LimitKey},
    ports::{Claim, Clock, Created, Entropy, PortError, Secrets, WriteStore},
    request::{FieldError, LaunchRequest, SubmitRequest},
    scheduler::reason::impossible,
    secret::SecretRecord,
    settings::Settings,
    task,
};
use sha2::{Digest, Sha256};

/// How long an idempotency key holds (DESIGN §7).
pub(crate) const CLAIM: TimeDelta = TimeDelta::hours(24);

/// The services that a request is checked with and recorded in.
#[derive(Debug)]
pub(crate) struct Intake<'a, S, X, A> {
    /// Where executions are recorded.
    pub(crate) store: &'a S,
    /// Which secrets are set.
    pub(crate) secrets: &'a X,
    /// Clock and randomness.
    pub(crate) system: &'a A,
    /// The installation's settings.
    pub(crate) settings: &'a Settings,
}

/// A request that is valid by itself, with the faults found by the installation's settings.
pub(crate) struct Draft {
    request: LaunchRequest,
    faults: Vec<FieldError>,
}

/// Facts about the secrets and pools that requests name. Each is looked up once, however many
/// requests name it.
#[derive(Default)]
pub(crate) struct KnownSecrets {
    /// Each secret; `None` for a secret that is not set.
    secrets: BTreeMap<String, Result<Option<SecretRecord>, Corrupt>>,
    /// The CPU units of each pool that may be in use at all.
    quotas: BTreeMap<CapacityPool, Option<u32>>,
}

impl<S: WriteStore, X: Secrets, A: Clock + Entropy> Intake<'_, S, X, A> {
    /// Returns the request as it will be run, or all its faults.
    pub(crate) async fn validated(
        &self,
        caller: &Caller,
        request: SubmitRequest,
    ) -> Result<Result<LaunchRequest, Vec<FieldError>>, PortError> {
        let draft = self.draft(request);
        let known = self.known(draft.iter()).await?;
        Ok(draft.and_then(|draft| self.judged(caller, draft, &known)))
    }

    /// Checks a request by itself. Returns all faults if it is not valid.
    pub(crate) fn draft(&self, request: SubmitRequest) -> Result<Draft, Vec<FieldError>> {
        let mut request = request.validate(&self.settings.defaults)?;
        let mut faults = self
            .settings
            .allowed
            .as_ref()
            .map_or_else(Vec::new, |allowed| allowed.apply(&mut request));
        faults.extend(task::too_new(&request, self.settings));
        Ok(Draft { request, faults })
    }

    /// Looks up the secrets and pools that these drafts name.
    pub(crate) async fn known(
        &self,
        drafts: impl Iterator<Item = &Draft>,
    ) -> Result<KnownSecrets, PortError> {
        let mut known = KnownSecrets::default();
        for draft in drafts {
            for name in &draft.request.secrets {
                if !known.secrets.contains_key(name.as_str()) {
                    let secret = match self.secrets.find_secret(name.as_str()).await {
                        Err(PortError::Corrupt(corrupt)) => {
                            corrupt.note();
                            Err(corrupt)
                        }
                        found => Ok(found?),
                    };
                    known.secrets.insert(name.to_string(), secret);
                }
            }
            let pool = task::pool(&draft.request, self.settings);
            if let Entry::Vacant(unknown) = known.quotas.entry(pool) {
                unknown.insert(self.quota(pool).await?);
            }
        }
        Ok(known)
    }

    /// Returns the quota that the installation sets for a pool, else the account's quota as the
    /// sweep last read it.
    async fn quota(&self, pool: CapacityPool) -> Result<Option<u32>, PortError> {
        match self.settings.quotas.of(pool).cpu {
            None => Ok(self
                .store
                .limit_state(&LimitKey::Pool(pool))
                .await?
                .pool
                .quota(None)),
            set => Ok(set),
        }
    }

    /// Returns the request as it will be run, or all its faults under this installation.
    pub(crate) fn judged(
        &self,
        caller: &Caller,
        draft: Draft,
        known: &KnownSecrets,
    ) -> Result<LaunchRequest, Vec<FieldError>> {
        let Draft {
            request,
            mut faults,
        } = draft;
        let quota = known
            .quotas
            .get(&task::pool(&request, self.settings))
            .copied()
            .flatten();
        if let Some(message) = impossible(request.size.cpu(), quota) {
            faults.push(FieldError {
                field: "cpu".into(),
                message,
            });
        }
        for (index, name) in request.secrets.iter().enumerate() {
            let message = match known.secrets.get(name.as_str()) {
                Some(Ok(Some(secret))) if secret.is_open_to(caller) => continue,
                Some(Ok(Some(secret))) => {
                    format!("`{name}` may be used only by keys of role {}", secret.role)
                }
                Some(Err(corrupt)) => {
                    format!("`{name}`: {corrupt}; an administrator can set it again")
                }
                Some(Ok(None)) | None => {
                    format!("`{name}`: {}", self.secrets.how_to_set(name.as_str()))
                }
            };
            faults.push(FieldError {
                field: format!("secrets[{index}]"),
                message,
            });
        }
        if faults.is_empty() {
            Ok(request)
        } else {
            Err(faults)
        }
    }

    /// Records an execution as submitted at `at`, once for each claim.
    pub(crate) async fn record(
        &self,
        caller: &Caller,
        request: LaunchRequest,
        claim: Option<&Claim>,
        at: Timestamp,
    ) -> Result<(Created, Execution), PortError> {
        let id = ExecutionId::new(at, self.system.bits());
        let pool = task::pool(&request, self.settings);
        let execution = Execution::submitted(id, request, pool, caller, at);
        let created = self.store.create(&execution, claim).await?;
        Ok((created, execution))
    }

    /// Returns the claim that ties an idempotency key of the caller to this request.
    pub(crate) fn claim(&self, caller: &Caller, key: &str, request: &LaunchRequest) -> Claim {
        let json = serde_json::to_vec(request).unwrap_or_default();
        Claim {
            key: format!("{}/{key}", caller.principal),
            digest: hex::encode(Sha256::digest(json)),
            expires_at: self.system.now() + CLAIM,
        }
    }
}

/// Returns the backlog that a newly recorded execution waits in.
pub(crate) fn backlog_of(execution: &Execution) -> LimitKey {
    execution
        .backlog_entry()
        .map_or(LimitKey::Pool(execution.pool), |backlog_entry| {
            backlog_entry.backlog
        })
}
