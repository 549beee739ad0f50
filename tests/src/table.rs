//! A DynamoDB table for one test, with the template's schema.

use aws::connect;
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_sdk_dynamodb::{
    Client,
    types::{
        AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType,
        Projection, ProjectionType, ScalarAttributeType, TableStatus,
    },
};
use serde::Deserialize;
use serde_json::Value;

use crate::emulator::{ACCESS_KEY, REGION, dynamodb_endpoint};

const TEMPLATE: &str = include_str!("../../infra/template.yaml");

/// The table. It is deleted when this is dropped, which needs a runtime with several threads.
#[derive(Debug)]
pub struct Table {
    /// A client of its DynamoDB.
    pub client: Client,
    /// Its unique name.
    pub name: String,
}

/// The SDK configuration for an emulator at this address, with its credentials.
#[must_use]
pub fn configuration(endpoint: String) -> aws_config::SdkConfig {
    let credentials = Credentials::new(ACCESS_KEY, ACCESS_KEY, None, None, "the tests");
    connect::configuration(
        REGION.into(),
        SharedCredentialsProvider::new(credentials),
        Some(endpoint),
    )
}

impl Table {
    /// Creates an empty table at [`dynamodb_endpoint`].
    ///
    /// # Panics
    /// When it cannot be created.
    pub async fn create() -> Self {
        // This may block on the script that starts the emulator.
        let endpoint = tokio::task::spawn_blocking(dynamodb_endpoint)
            .await
            .expect("it has an address");
        let client = Client::new(&configuration(endpoint));
        let name = format!("mycli-test-{:016x}", u64::from_ne_bytes(random()));
        let described = Described::read();
        client
            .create_table()
            .table_name(&name)
            .billing_mode(BillingMode::PayPerRequest)
            .set_attribute_definitions(Some(
                described
                    .attribute_definitions
                    .iter()
                    .map(Attribute::build)
                    .collect(),
            ))
            .set_key_schema(Some(keys(&described.key_schema)))
            .set_global_secondary_indexes(Some(
                described
                    .global_secondary_indexes
                    .iter()
                    .map(Index::build)
                    .collect(),
            ))
            .send()
            .await
            .expect("a table can be made");
        let table = Self { client, name };
        table.wait().await;
        table
    }

    /// Waits until the table is active. A real DynamoDB takes seconds; the test's own time limit
    /// bounds this.
    async fn wait(&self) {
        loop {
            let described = self
                .client
                .describe_table()
                .table_name(&self.name)
                .send()
                .await
                .expect("it is there");
            if described.table.and_then(|table| table.table_status) == Some(TableStatus::Active) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        let delete = self.client.delete_table().table_name(&self.name).send();
        tokio::task::block_in_place(|| {
            let _deleted = tokio::runtime::Handle::current().block_on(delete);
        });
    }
}

fn random() -> [u8; 8] {
    let mut bytes = [0; 8];
    let mut source = std::fs::File::open("/dev/urandom").expect("a random source");
    std::io::Read::read_exact(&mut source, &mut bytes).expect("random bytes");
    bytes
}

/// The table's schema in the template.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Described {
    attribute_definitions: Vec<Attribute>,
    key_schema: Vec<Part>,
    global_secondary_indexes: Vec<Index>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attribute {
    attribute_name: String,
    attribute_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Part {
    attribute_name: String,
    key_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Index {
    index_name: String,
    key_schema: Vec<Part>,
    projection: Projected,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Projected {
    projection_type: String,
    non_key_attributes: Option<Vec<String>>,
}

impl Described {
    fn read() -> Self {
        let template: Value = serde_norway::from_str(TEMPLATE).expect("the template is YAML");
        let properties = template["Resources"]["Table"]["Properties"].clone();
        serde_json::from_value(properties).expect("the template describes the table")
    }
}

impl Attribute {
    fn build(&self) -> AttributeDefinition {
        AttributeDefinition::builder()
            .attribute_name(&self.attribute_name)
            .attribute_type(ScalarAttributeType::from(self.attribute_type.as_str()))
            .build()
            .expect("complete")
    }
}

impl Index {
    fn build(&self) -> GlobalSecondaryIndex {
        let projection = Projection::builder()
            .projection_type(ProjectionType::from(
                self.projection.projection_type.as_str(),
            ))
            .set_non_key_attributes(self.projection.non_key_attributes.clone())
            .build();
        GlobalSecondaryIndex::builder()
            .index_name(&self.index_name)
            .set_key_schema(Some(keys(&self.key_schema)))
            .projection(projection)
            .build()
            .expect("complete")
    }
}

fn keys(parts: &[Part]) -> Vec<KeySchemaElement> {
    let part = |part: &Part| {
        let key_type = KeyType::from(part.key_type.as_str());
        KeySchemaElement::builder()
            .attribute_name(&part.attribute_name)
            .key_type(key_type)
            .build()
            .expect("complete")
    };
    parts.iter().map(part).collect()
}
