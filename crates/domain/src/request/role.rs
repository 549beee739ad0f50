//! Names of resources in the user's AWS account: the task's role, and the secret with a private
//! registry's credentials.

use thiserror::Error;

use super::text::text_type;

text_type! {
    /// The IAM role that the command runs with: a role's name, or its ARN.
    TaskRole, ResourceError
}

text_type! {
    /// The Secrets Manager secret that holds a private registry's credentials: its name, or its
    /// ARN. It never holds the credentials themselves.
    RegistrySecret, ResourceError
}

/// The longest role name, in characters (IAM API, `roleNameType`).
const ROLE_NAME_MAX: usize = 64;

/// The longest role path, slashes included, in characters (IAM API, `pathType`).
const ROLE_PATH_MAX: usize = 512;

/// The longest secret name, in characters (Secrets Manager API, `NameType`).
const SECRET_NAME_MAX: usize = 512;

/// Why a text is not the name of a role or secret. No variant holds the text, because it may be the
/// secret itself, put in the wrong place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ResourceError {
    /// Neither a role's name nor its ARN.
    #[error(
        "is neither a role's name (1 to 64 letters, digits or `+=,.@_-`) nor its ARN: write it like \
         `my-role` or `arn:aws:iam::123456789012:role/my-role`"
    )]
    Role,
    /// Neither a secret's name nor its ARN.
    #[error(
        "is neither a secret's name (1 to 512 letters, digits or `/_+=.@-`) nor its ARN: write it like \
         `registry/ci` or `arn:aws:secretsmanager:eu-west-1:123456789012:secret:registry/ci-AbCdEf`"
    )]
    Secret,
}

impl TaskRole {
    fn check(text: &str) -> Result<(), ResourceError> {
        let valid = match arn(text) {
            Some(Arn {
                service: "iam",
                region: "",
                resource,
            }) => resource
                .strip_prefix("role/")
                .is_some_and(is_role_with_path),
            Some(_) => false,
            None => is_role_name(text),
        };
        if valid {
            Ok(())
        } else {
            Err(ResourceError::Role)
        }
    }
}

impl RegistrySecret {
    fn check(text: &str) -> Result<(), ResourceError> {
        let valid = match arn(text) {
            Some(Arn {
                service: "secretsmanager",
                region,
                resource,
            }) => {
                !region.is_empty() && resource.strip_prefix("secret:").is_some_and(is_secret_name)
            }
            Some(_) => false,
            None => is_secret_name(text),
        };
        if valid {
            Ok(())
        } else {
            Err(ResourceError::Secret)
        }
    }
}

/// The parts of an ARN that differ between these resources.
struct Arn<'a> {
    service: &'a str,
    region: &'a str,
    resource: &'a str,
}

/// Splits `arn:partition:service:region:account:resource`. The account must be twelve digits.
fn arn(text: &str) -> Option<Arn<'_>> {
    let mut parts = text.splitn(6, ':');
    let (head, partition) = (parts.next()?, parts.next()?);
    let (service, region) = (parts.next()?, parts.next()?);
    let (account, resource) = (parts.next()?, parts.next()?);
    let partition_known = partition == "aws" || partition.strip_prefix("aws-").is_some_and(is_word);
    let account_known = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    let region_known = region.is_empty() || is_word(region);
    (head == "arn" && partition_known && account_known && region_known).then_some(Arn {
        service,
        region,
        resource,
    })
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

fn is_role_with_path(text: &str) -> bool {
    match text.rsplit_once('/') {
        Some((path, name)) => {
            path.len() + 2 <= ROLE_PATH_MAX
                && path.bytes().all(|byte| byte.is_ascii_graphic())
                && is_role_name(name)
        }
        None => is_role_name(text),
    }
}

fn is_role_name(text: &str) -> bool {
    is_made_of(text, "+=,.@_-", ROLE_NAME_MAX)
}

fn is_secret_name(text: &str) -> bool {
    is_made_of(text, "/_+=.@-", SECRET_NAME_MAX)
}

fn is_made_of(text: &str, marks: &str, max: usize) -> bool {
    (1..=max).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || marks.contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_by_name_and_by_arn() {
        for text in [
            "deployer",
            "Team+Role=1,x.y@z_-",
            "arn:aws:iam::123456789012:role/deployer",
            "arn:aws-cn:iam::123456789012:role/ci/prod/deployer",
            &"r".repeat(64),
        ] {
            assert_eq!(text.parse::<TaskRole>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn what_is_no_role_is_shown_how_to_write_one() {
        let message = "is neither a role's name (1 to 64 letters, digits or `+=,.@_-`) nor its ARN: write it like \
                       `my-role` or `arn:aws:iam::123456789012:role/my-role`";
        for text in [
            "",
            "a b",
            "role/x",
            &"r".repeat(65),
            "arn:aws:iam::1234:role/x",
            "arn:aws:iam::123456789012:user/x",
            "arn:aws:s3::123456789012:role/x",
            "arn:aws:iam:eu-west-1:123456789012:role/x",
            "arn:aws:iam::123456789012:role/",
        ] {
            assert_eq!(
                text.parse::<TaskRole>().unwrap_err().to_string(),
                message,
                "{text}"
            );
        }
    }

    #[test]
    fn registry_secrets_by_name_and_by_arn() {
        for text in [
            "registry",
            "ci/registry",
            "arn:aws:secretsmanager:eu-west-1:123456789012:secret:ci/registry-AbCdEf",
        ] {
            assert_eq!(text.parse::<RegistrySecret>().unwrap().as_str(), text);
        }
        let message = "is neither a secret's name (1 to 512 letters, digits or `/_+=.@-`) nor its ARN: write it like \
                       `registry/ci` or `arn:aws:secretsmanager:eu-west-1:123456789012:secret:registry/ci-AbCdEf`";
        for text in [
            "",
            "user:password",
            &"s".repeat(513),
            "arn:aws:ssm:eu-west-1:123456789012:secret:x",
            "arn:aws:secretsmanager::123456789012:secret:x",
            "arn:aws:secretsmanager:eu-west-1:123456789012:parameter:x",
        ] {
            assert_eq!(
                text.parse::<RegistrySecret>().unwrap_err().to_string(),
                message,
                "{text}"
            );
        }
    }
}
