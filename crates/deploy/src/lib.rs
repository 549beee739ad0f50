//! Deploying to an AWS account.
