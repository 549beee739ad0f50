//! placeholder
/// x
pub fn text() -> &'static str { "" }
