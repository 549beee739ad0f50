//! Callers of tests.

use domain::{
    key::{Caller, Role},
    principal::Principal,
};

/// Somebody of this name with a key of role submit, and a principal that nobody of another name
/// has. Of a name of letters and digits, the principal is `key:` and that name.
#[must_use]
pub fn caller(name: &str) -> Caller {
    let id = name.chars().filter(char::is_ascii_alphanumeric).collect();
    Caller {
        name: name.to_owned(),
        principal: Principal::Key(id),
        role: Role::Submit,
    }
}
