//! The request's closed sets of choices, spelt as the API spells them.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::text::shown;

/// The processor a task runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Arch {
    /// 64-bit ARM (Graviton on Fargate).
    #[serde(rename = "arm64")]
    Arm64,
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86_64,
}

/// How a task's capacity is bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capacity {
    /// Fargate Spot: cheaper, but AWS may take it back with two minutes' notice.
    Spot,
    /// Fargate on demand.
    OnDemand,
}

/// A cause for which the user allows the command to be run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetryOn {
    /// AWS took back the Spot capacity under the running command.
    Spot,
    /// The host failed under the running command.
    Host,
    /// The command itself ended with a code other than zero.
    Failure,
}

/// After which end of a command its files are kept.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum ArtifactsOn {
    /// After every end, also after a timeout and a cancel.
    #[default]
    Always,
    /// After exit code 0 only.
    Success,
    /// After every other end only.
    Failure,
}

/// A text that is not one of the choices.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{} is not known: use {allowed}", shown(text))]
pub struct ChoiceError {
    text: String,
    allowed: &'static str,
}

macro_rules! spelling {
    ($name:ident, $allowed:literal, $($variant:ident => $text:literal $(| $alias:literal)*),+) => {
        impl $name {
            /// Returns the API's spelling.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl std::str::FromStr for $name {
            type Err = ChoiceError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($text $(| $alias)* => Ok(Self::$variant),)+
                    _ => Err(ChoiceError { text: text.to_owned(), allowed: $allowed }),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

// The names that Docker and the kernel use for the same processors are accepted too, and stored in
// our spelling.
spelling!(Arch, "`arm64` or `x86_64`", Arm64 => "arm64" | "aarch64", X86_64 => "x86_64" | "amd64");
spelling!(Capacity, "`spot` or `on-demand`", Spot => "spot", OnDemand => "on-demand");
spelling!(ArtifactsOn, "`always`, `success` or `failure`", Always => "always", Success => "success", Failure => "failure");
spelling!(RetryOn, "`spot`, `host` or `failure`", Spot => "spot", Host => "host", Failure => "failure");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_read_and_write_the_same_spelling() {
        for text in ["arm64", "x86_64"] {
            let arch: Arch = text.parse().unwrap();
            assert_eq!(serde_json::to_value(arch).unwrap(), text);
            assert_eq!(arch.to_string(), text);
        }
        for text in ["spot", "on-demand"] {
            let capacity: Capacity = text.parse().unwrap();
            assert_eq!(serde_json::to_value(capacity).unwrap(), text);
            assert_eq!(capacity.to_string(), text);
        }
        for text in ["spot", "host", "failure"] {
            let cause: RetryOn = text.parse().unwrap();
            assert_eq!(serde_json::to_value(cause).unwrap(), text);
            assert_eq!(cause.to_string(), text);
        }
    }

    #[test]
    fn the_names_of_docker_and_the_kernel_are_understood() {
        assert_eq!("amd64".parse(), Ok(Arch::X86_64));
        assert_eq!("aarch64".parse(), Ok(Arch::Arm64));
    }

    #[test]
    fn an_unknown_choice_is_told_the_known_ones() {
        let arch = "riscv".parse::<Arch>().unwrap_err();
        assert_eq!(
            arch.to_string(),
            "`riscv` is not known: use `arm64` or `x86_64`"
        );
        let capacity = "ondemand".parse::<Capacity>().unwrap_err();
        assert_eq!(
            capacity.to_string(),
            "`ondemand` is not known: use `spot` or `on-demand`"
        );
        let cause = "oom".parse::<RetryOn>().unwrap_err();
        assert_eq!(
            cause.to_string(),
            "`oom` is not known: use `spot`, `host` or `failure`"
        );
    }
}
