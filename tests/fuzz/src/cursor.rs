//! Cursors in history and in logs, which callers send back to the API.

use domain::history::{Cursor, LogCursor, LogEnds};

pub(crate) const HISTORY: &[&str] = &[
    "ZXhlY18wMUpEM1pRNVQ3WTlXMU44TTJLNEM2WDdROQ",
    "ZXhlY183WlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWg",
    "",
];
pub(crate) const LOG: &[&str] = &[
    "eyJhIjoxLCJjIjoiMTIzIiwiZSI6ZmFsc2V9",
    "eyJhIjowLCJjIjpudWxsLCJlIjpmYWxzZX0",
    "eyJhIjoyLCJjIjoiZi8zODE2NDk3MjMiLCJlIjp0cnVlfQ",
];

/// An accepted cursor is exactly what we would write. All others are refused with the field's name.
pub(crate) fn history(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    match Cursor::decode(text) {
        Ok(cursor) => assert_eq!(cursor.encode(), text),
        Err(fault) => assert_eq!(fault.field, "cursor"),
    }
    // A cursor that we write is accepted, whatever its id.
    let mut seed = [0; 16];
    bytes
        .iter()
        .take(16)
        .zip(&mut seed)
        .for_each(|(byte, seed)| *seed = *byte);
    let cursor = Cursor(domain::id::ExecutionId::new(
        chrono::DateTime::UNIX_EPOCH,
        u128::from_be_bytes(seed),
    ));
    assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor));
}

pub(crate) fn log(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    match LogCursor::decode(text) {
        Ok(cursor) => assert_eq!(cursor.encode(), text),
        Err(fault) => assert_eq!(fault.field, "cursor"),
    }
    let first = bytes.first().copied().unwrap_or_default();
    let cursor = LogCursor {
        attempt: first.into(),
        stream: Some(text.to_owned()),
        ends: LogEnds::default().and(usize::from(first % 3)),
    };
    assert_eq!(LogCursor::decode(&cursor.encode()), Ok(cursor));
}
