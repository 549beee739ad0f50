//! The outcome of a deployment: the change to the stack, or the reason of the failure.

use crate::{
    CallError, indexes::PlanError, stack::StackError, table::SettleError, template::TemplateError,
};

/// A change to a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackChange {
    /// The stack was created.
    Made,
    /// The stack was updated.
    Changed,
    /// The stack was up to date.
    Nothing,
}

/// Why a deployment failed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A parameter that the template does not have.
    #[error("the template has no parameter `{name}`; its parameters are {known}")]
    Parameter {
        /// The name that was given.
        name: String,
        /// The parameters that exist.
        known: String,
    },
    /// The user may not set this parameter.
    #[error("the parameter `{0}` follows from the code and the account, and cannot be set")]
    Own(String),
    /// The template is of a release that had no image of the runner.
    #[error(
        "the template lacks the parameter `{0}`: base it on what `mycli init --print-template` of this version prints"
    )]
    OldTemplate(&'static str),
    /// Runs that name no processor would have no runner.
    #[error(
        "runs get the processor {arch} by default (DefaultArch), and this mycli has the runner for {known} alone: take a release of \
         mycli, or set another with --parameter DefaultArch={known}"
    )]
    Arch {
        /// The stack's default.
        arch: String,
        /// The processors that there is a runner for.
        known: String,
    },
    /// A removal of the stack was not completed.
    #[error("the stack is half removed{}: finish that with `mycli destroy`", .0.as_deref().map(|why| format!(" ({why})")).unwrap_or_default())]
    HalfRemoved(Option<String>),
    /// A table of the stack's name exists that mycli did not make.
    #[error("there is a table {0} that mycli did not make: choose another name with --stack")]
    ForeignTable(String),
    /// The account has opted out of ECS's long ARNs.
    #[error(
        "this account still uses ECS's short task ARNs, which the stack's roles do not match and which cannot have tags: opt in with \
         `aws ecs put-account-setting-default --name taskLongArnFormat --value enabled --region {0}`, then run this again"
    )]
    ShortArns(String),
    /// API Gateway's log role cannot be read, and must not be replaced without looking.
    #[error(
        "{0}.\nAPI Gateway has one log role for the account and region: use --parameter GatewayLogRole=keep if one is set, or \
         --parameter GatewayLogRole=create to have one made"
    )]
    GatewayLogRole(CallError),
    /// The table's keys or indexes cannot be changed as the template asks.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// An index did not become ready.
    #[error(transparent)]
    Index(#[from] SettleError),
    /// The stack could not be changed.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The template is not usable.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
}
