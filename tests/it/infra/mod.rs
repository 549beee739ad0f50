//! The files that deploy the pipeline (the template, the roles, the rule, the API's document)
//! against the code and the rules of AWS.

pub(crate) mod api;
mod events;
mod functions;
mod init_policy;
mod keys;
pub(crate) mod roles;
mod table;
mod template;
