//! The ports over AWS. No SDK type crosses this crate's edge, but for the configuration that its
//! parts are made of.

mod batch;
pub mod connect;
pub mod dynamo;
pub mod ecs;
pub mod error;
pub mod events;
pub mod logs;
pub mod quotas;
pub mod settings;
pub mod sqs;
pub mod ssm;
pub mod system;
