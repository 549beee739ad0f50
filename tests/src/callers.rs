//! Callers for tests.

use domain::{
    key::{Caller, Role},
    principal::Principal,
};

/// A caller with this name, the role `submit`, and a principal that no other name shares. For a
/// name of letters and digits only, the principal is `key:` and the name.
#[must_use]
pub fn caller(name: &str) -> Caller {
    let id = name.chars().filter(char::is_ascii_alphanumeric).collect();
    Caller {
        name: name.to_owned(),
        principal: Principal::Key(id),
        role: Role::Submit,
    }
}
