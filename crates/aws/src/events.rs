//! Sends the ends of executions to EventBridge.

use std::sync::{Arc, Mutex, PoisonError};

use aws_config::SdkConfig;
use aws_sdk_eventbridge::{
    Client,
    types::{PutEventsRequestEntry, PutEventsResultEntry, Rule, RuleState},
};
use aws_smithy_types::DateTime;
use chrono::TimeDelta;
use domain::{
    Timestamp,
    announcement::{Announcement, DETAIL_TYPE, SOURCE},
    ports::{Announcer, Clock as _, PortError},
};
use serde_json::Value;

use crate::{
    batch::{self, LeftItem},
    connect::Lazily,
    error::{Fault, failed},
    system::System,
};

const SERVICE: &str = "EventBridge";

/// How long an answer to [`EventBus::is_heard`] is good: one that somebody listens, and one that
/// nobody does. A new rule need not wait long for its first event.
const GOOD_FOR: [TimeDelta; 2] = [TimeDelta::seconds(60), TimeDelta::seconds(10)];

/// An event bus.
#[derive(Clone, Debug)]
pub struct EventBus {
    client: Lazily<Client>,
    name: String,
    /// Whether somebody listens, and until when that answer is good.
    heard: Arc<Mutex<Option<(bool, Timestamp)>>>,
}

impl EventBus {
    /// The bus of this name.
    #[must_use]
    pub fn new(config: &SdkConfig, name: String) -> Self {
        Self {
            client: Lazily::of(config, Client::new),
            name,
            heard: Arc::default(),
        }
    }

    /// Whether a rule of the bus may take our events.
    async fn has_rule(&self) -> Result<bool, PortError> {
        let mut token = None;
        loop {
            let call = self.client.list_rules().event_bus_name(&self.name);
            let page = call.set_next_token(token).send().await;
            let page = page.map_err(failed(SERVICE))?;
            let takes_ours = |rule: &Rule| {
                rule.state() != Some(&RuleState::Disabled)
                    && rule.event_pattern().is_some_and(may_take_ours)
            };
            if page.rules().iter().any(takes_ours) {
                return Ok(true);
            }
            token = page.next_token;
            if token.is_none() {
                return Ok(false);
            }
        }
    }

    fn entry(&self, announcement: &Announcement) -> Result<PutEventsRequestEntry, PortError> {
        let detail = serde_json::to_string(announcement)
            .map_err(|error| PortError::invalid(SERVICE, error))?;
        let time = announcement
            .stopped_at
            .map(|at| DateTime::from_millis(at.timestamp_millis()));
        Ok(PutEventsRequestEntry::builder()
            .event_bus_name(&self.name)
            .source(SOURCE)
            .detail_type(DETAIL_TYPE)
            .detail(detail)
            .set_time(time)
            .build())
    }

    async fn put(
        &self,
        entries: Vec<PutEventsRequestEntry>,
    ) -> Result<Vec<LeftItem<PutEventsRequestEntry>>, PortError> {
        let call = self.client.put_events().set_entries(Some(entries.clone()));
        let output = call.send().await.map_err(failed(SERVICE))?;
        // The answers are in the order of the entries (API reference, `PutEvents`).
        let left = |(place, item)| left(item, output.entries().get(place));
        Ok(entries.into_iter().enumerate().filter_map(left).collect())
    }
}

/// Whether a rule with this pattern may take our events. It surely does not if it wants another
/// source or another kind of event. All else it says is not looked at.
fn may_take_ours(pattern: &str) -> bool {
    let Ok(Value::Object(pattern)) = serde_json::from_str(pattern) else {
        return true;
    };
    let may_be = |field: &str, ours: &str| {
        let Some(Value::Array(wanted)) = pattern.get(field) else {
            return true;
        };
        // A value that is no text is an operator, such as `prefix`.
        wanted
            .iter()
            .any(|wanted| wanted.as_str().is_none_or(|wanted| wanted == ours))
    };
    may_be("source", SOURCE) && may_be("detail-type", DETAIL_TYPE)
}

impl Announcer for EventBus {
    /// A bus whose rules cannot be listed counts as heard.
    async fn is_heard(&self) -> Result<bool, PortError> {
        let known = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        // Not by a monotonic clock: that of a function stands still between its invocations.
        let now = System.now();
        if let Some((is_heard, until)) = known
            && now < until
        {
            return Ok(is_heard);
        }
        let is_heard = self.has_rule().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the rules of the event bus cannot be listed");
            true
        });
        let until = now + GOOD_FOR[usize::from(!is_heard)];
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some((is_heard, until));
        Ok(is_heard)
    }

    /// Sends ten a call. Their bytes need no counting: an announcement has about one thousand
    /// bytes, and a call may have 256 KB and more (EventBridge quotas).
    async fn announce(&self, announcements: &[Announcement]) -> Result<(), PortError> {
        let entries: Result<Vec<_>, _> = announcements
            .iter()
            .map(|announcement| self.entry(announcement))
            .collect();
        batch::send(SERVICE, entries?, |entries| self.put(entries)).await
    }
}

/// The item, if it was not accepted. An entry without an answer counts as not accepted.
fn left(
    item: PutEventsRequestEntry,
    answer: Option<&PutEventsResultEntry>,
) -> Option<LeftItem<PutEventsRequestEntry>> {
    let Some(answer) = answer else {
        return Some(LeftItem {
            item,
            fault: Fault::no_answer(),
        });
    };
    let fault = Fault::answered(
        400,
        Some(answer.error_code()?),
        answer.error_message().unwrap_or_default(),
    );
    Some(LeftItem { item, fault })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_may_take_our_events_is_heard() {
        for (pattern, may) in [
            (r#"{"source":["mycli"]}"#, true),
            (
                r#"{"source":["mycli"],"detail-type":["Execution State Change"]}"#,
                true,
            ),
            (
                r#"{"source":["mycli"],"detail":{"status":["FAILED"]}}"#,
                true,
            ),
            (r#"{"source":["aws.ecs"]}"#, false),
            (r#"{"source":["aws.ecs","mycli"]}"#, true),
            (r#"{"source":[{"prefix":"my"}]}"#, true),
            (r#"{"detail-type":["ECS Task State Change"]}"#, false),
            (r#"{"account":["123456789012"]}"#, true),
            ("{}", true),
            ("no JSON", true),
        ] {
            assert_eq!(may_take_ours(pattern), may, "{pattern}");
        }
    }
}
