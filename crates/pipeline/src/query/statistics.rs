//! `GET /stats`: what was counted of the runs that ended.

use std::{fmt::Display, ops::RangeInclusive};

use aws_lambda_events::apigw::{ApiGatewayProxyRequest, ApiGatewayProxyResponse};
use chrono::{Days, NaiveDate};
use domain::{
    Timestamp,
    api::{Problem, StatsView},
    ports::{Clock, PortError, ReadStore},
    request::FieldError,
    statistics::{DAYS_DEFAULT, Dimension, ReportSum},
};

use super::Query;
use crate::http;

/// The days whose tallies are in memory at the same time.
const DAYS_AT_ONCE: u64 = 7;

impl<S: ReadStore, K, L, F, A: Clock> Query<'_, S, K, L, F, A> {
    pub(super) async fn stats(
        &self,
        request: &ApiGatewayProxyRequest,
    ) -> Result<ApiGatewayProxyResponse, Problem> {
        http::only_parameters(request, &["since", "by"])?;
        let (days, by) = asked(request, self.system.now()).map_err(Problem::invalid)?;
        let sum = self.add_up(&days, by).await;
        let report = sum.map_err(|error| http::failed(&error))?.report();
        Ok(http::json(200, &StatsView::new(days, by, report)))
    }

    async fn add_up(
        &self,
        days: &RangeInclusive<NaiveDate>,
        by: Dimension,
    ) -> Result<ReportSum, PortError> {
        let (mut sum, mut from) = (ReportSum::new(by), *days.start());
        while from <= *days.end() {
            let next = from + Days::new(DAYS_AT_ONCE);
            let last = (next - Days::new(1)).min(*days.end());
            sum.extend(self.store.tallies(by, from..=last).await?);
            from = next;
        }
        Ok(sum)
    }
}

/// The days and the dimension that a request names.
fn asked(
    request: &ApiGatewayProxyRequest,
    now: Timestamp,
) -> Result<(RangeInclusive<NaiveDate>, Dimension), Vec<FieldError>> {
    let fault = |field: &str, message: &dyn Display| FieldError {
        field: field.into(),
        message: message.to_string(),
    };
    let by = http::parameter(request, "by").map_or(Ok(Dimension::Day), |text| {
        text.parse().map_err(|error: String| fault("by", &error))
    });
    let today = now.date_naive();
    let first = |days: u32| today - Days::new(u64::from(days));
    let since = http::parameter(request, "since").map_or(Ok(first(DAYS_DEFAULT)), |text| {
        let wanted = "is not a time; use RFC 3339 such as 2026-11-24T09:00:00Z";
        let since = text.parse().map_err(|_| fault("since", &wanted));
        since.map(|since: Timestamp| since.date_naive())
    });
    let bounded = since.and_then(|since| {
        let most = by.as_ref().map_or(Dimension::Day, |by| *by);
        let earliest = first(most.days_max());
        // A day is left for clients whose clock or time zone is ahead or behind.
        if since > today + Days::new(1) {
            Err(fault("since", &"is in the future"))
        } else if since < earliest - Days::new(1) {
            let days = most.days_max();
            let message = format!(
                "is too long ago: by {most}, statistics go back {days} days, to {earliest}"
            );
            Err(fault("since", &message))
        } else {
            Ok(since.clamp(earliest, today))
        }
    });
    match (by, bounded) {
        (Ok(by), Ok(since)) => Ok((since..=today, by)),
        (by, since) => Err(by.err().into_iter().chain(since.err()).collect()),
    }
}
