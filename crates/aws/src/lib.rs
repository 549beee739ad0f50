//! The ports over AWS. No type of the SDK crosses this crate's boundary, except the configuration
//! from which its adapters are built.

pub mod artifacts;
mod batch;
pub mod connect;
pub mod dynamo;
pub mod ecs;
pub mod error;
pub mod events;
pub mod logs;
pub mod metrics;
pub mod quotas;
pub mod settings;
pub mod sqs;
pub mod ssm;
pub mod system;
