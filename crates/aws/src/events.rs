//! Sends the ends of executions to EventBridge.

use aws_config::SdkConfig;
use aws_sdk_eventbridge::{
    Client,
    types::{PutEventsRequestEntry, PutEventsResultEntry},
};
use aws_smithy_types::DateTime;
use domain::{
    announcement::{Announcement, DETAIL_TYPE, SOURCE},
    ports::{Announcer, PortError},
};

use crate::{
    batch::{self, LeftItem},
    connect::Lazily,
    error::{Fault, failed},
};

const SERVICE: &str = "EventBridge";

/// An event bus.
#[derive(Clone, Debug)]
pub struct EventBus {
    client: Lazily<Client>,
    name: String,
}

impl EventBus {
    /// The bus of this name.
    #[must_use]
    pub fn new(config: &SdkConfig, name: String) -> Self {
        Self {
            client: Lazily::of(config, Client::new),
            name,
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

impl Announcer for EventBus {
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
