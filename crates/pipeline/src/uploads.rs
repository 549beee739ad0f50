//! `POST /attempts/{id}/uploads`: the steps by which the runner of an attempt uploads files.

use aws_lambda_events::apigw::{ApiGatewayProxyRequest, ApiGatewayProxyResponse};
use chrono::TimeDelta;
use domain::{
    api::Problem,
    id::AttemptId,
    ports::{ArtifactWrites, Clock, PortError, ReadStore, UploadRecords},
    upload::{LargeUpload, UPLOAD_BODY_MAX, UploadAnswer, UploadBatch, UploadStep, UploadedPart},
};

use crate::{attempts, http};

/// How long the records of an upload are kept: longer than a task may run after it has begun one.
const KEPT: TimeDelta = TimeDelta::days(2);

/// The part of the submit function that serves runners.
#[derive(Debug)]
pub struct Uploads<'a, S, F, A> {
    /// Where executions are recorded, and batches.
    pub store: &'a S,
    /// Where files are kept.
    pub files: &'a F,
    /// The clock.
    pub system: &'a A,
}

impl<S: ReadStore + UploadRecords, F: ArtifactWrites, A: Clock> Uploads<'_, S, F, A> {
    /// Answers an event of API Gateway.
    pub async fn handle(&self, request: &ApiGatewayProxyRequest) -> ApiGatewayProxyResponse {
        http::answered(request, self.step(request)).await
    }

    async fn step(
        &self,
        request: &ApiGatewayProxyRequest,
    ) -> Result<ApiGatewayProxyResponse, Problem> {
        let (attempt, _) = attempts::admit(self.store, request).await?;
        let step: UploadStep = http::body(request, UPLOAD_BODY_MAX)?;
        step.check().map_err(Problem::invalid)?;
        let answer = self.carry_out(&attempt, &step).await?;
        Ok(http::json(200, &answer))
    }

    async fn carry_out(
        &self,
        attempt: &AttemptId,
        step: &UploadStep,
    ) -> Result<UploadAnswer, Problem> {
        let batch = self.batch(attempt, step).await?;
        let number = batch.number;
        let requests = match step {
            UploadStep::Files { files, .. } => {
                let mut requests = Vec::with_capacity(files.len());
                for (index, file) in (0..).zip(files) {
                    let request = self.files.sign_file(
                        attempt,
                        number,
                        Some(index),
                        file.bytes,
                        &file.sha256,
                    );
                    requests.push(request.await.map_err(failed)?);
                }
                requests
            }
            UploadStep::Large { .. } => Vec::new(),
            UploadStep::Parts { first, sha256, .. } => {
                let large = large_of(&batch)?;
                let last = first.saturating_add(u32::try_from(sha256.len()).unwrap_or(u32::MAX));
                if *first == 0 || last - 1 > large.parts() {
                    return Err(no_such_part(large));
                }
                let mut requests = Vec::with_capacity(sha256.len());
                for (part, sha256) in (*first..).zip(sha256) {
                    let request = self.files.sign_part(attempt, number, large, part, sha256);
                    requests.push(request.await.map_err(failed)?);
                }
                requests
            }
            UploadStep::Complete { parts, .. } => {
                self.complete(attempt, &batch, parts).await?;
                Vec::new()
            }
            UploadStep::Manifest { bytes, sha256, .. } => {
                let request = self.files.sign_file(attempt, number, None, *bytes, sha256);
                vec![request.await.map_err(failed)?]
            }
        };
        Ok(UploadAnswer { requests })
    }

    /// The batch that a step is about, which it begins if it is the first one about it.
    async fn batch(&self, attempt: &AttemptId, step: &UploadStep) -> Result<UploadBatch, Problem> {
        let number = step.batch();
        let missing = || {
            let title = format!("the batch number {number} was not begun");
            Problem::new(409, "batch_missing", title)
        };
        let known = self.store.upload_batch(attempt, number).await;
        if let Some(known) = known.map_err(failed)? {
            return same(step, known);
        }
        let before = match number.checked_sub(1) {
            Some(before) => self
                .store
                .upload_batch(attempt, before)
                .await
                .map_err(failed)?,
            None => None,
        };
        let mut batch = step.begun(before.as_ref())?.ok_or_else(missing)?;
        if let Some(large) = &mut batch.large {
            let id = self.files.begin_large(attempt, number).await;
            large.id = id.map_err(failed)?;
        }
        let expires_at = self.system.now() + KEPT;
        let recorded = self
            .store
            .begin_upload_batch(attempt, &batch, expires_at)
            .await;
        // Another call may have been faster. The upload that this one has begun in S3 is removed
        // after a day.
        same(step, recorded.map_err(failed)?)
    }

    async fn complete(
        &self,
        attempt: &AttemptId,
        batch: &UploadBatch,
        parts: &[UploadedPart],
    ) -> Result<(), Problem> {
        let large = large_of(batch)?;
        if u32::try_from(parts.len()) != Ok(large.parts()) {
            return Err(no_such_part(large));
        }
        let completed = self
            .files
            .complete_large(attempt, batch.number, large, parts);
        match completed.await {
            Err(PortError::Rejected(rejected)) => {
                tracing::warn!(%attempt, error = %rejected, "the parts of a file were refused");
                let title = "the parts are not those that were sent, or more time has passed than S3 keeps them";
                Err(Problem::new(409, "parts_refused", title))
            }
            completed => completed.map_err(failed),
        }
    }
}

/// The batch, unless the step would begin another one under its number.
fn same(step: &UploadStep, batch: UploadBatch) -> Result<UploadBatch, Problem> {
    let begins = matches!(step, UploadStep::Files { .. } | UploadStep::Large { .. });
    if begins && !step.has_begun(&batch) {
        let title = format!(
            "the batch number {} was begun with other files",
            batch.number
        );
        return Err(Problem::new(409, "batch_differs", title));
    }
    Ok(batch)
}

fn large_of(batch: &UploadBatch) -> Result<&LargeUpload, Problem> {
    batch.large.as_ref().ok_or_else(|| {
        let title = format!("the batch number {} has no file in parts", batch.number);
        Problem::new(409, "not_in_parts", title)
    })
}

fn no_such_part(large: &LargeUpload) -> Problem {
    let title = format!("the file has {} parts, counted from 1", large.parts());
    Problem::new(409, "no_such_part", title)
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn failed(error: PortError) -> Problem {
    http::failed(&error)
}
