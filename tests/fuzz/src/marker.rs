//! Lines of a log, in which the script's marker lines are mixed with the command's text.

use domain::marker::{self, Marker, PREFIX};

const NONCE: &str = "0123456789abcdef0123456789abcdef";

pub(crate) const LINES: &[&str] = &[
    "::mycli:0123456789abcdef0123456789abcdef:exit:0",
    "50%::mycli:0123456789abcdef0123456789abcdef:exit:137\r",
    "::mycli:ffffffffffffffffffffffffffffffff:exit:0::mycli:0123456789abcdef0123456789abcdef:fail:no git: here",
    "::mycli:0123456789abcdef0123456789abcdef:commit:0123456789012345678901234567890123456789",
    "::mycli:0123456789abcdef0123456789abcdef:start",
];

/// Without the nonce nothing counts as a marker. Text before a marker is left as it is.
pub(crate) fn marker(bytes: &[u8]) {
    let line = String::from_utf8_lossy(bytes);
    let (text, found) = marker::split(NONCE, &line);
    let ours = format!("{PREFIX}{NONCE}:");
    match found {
        None => assert_eq!(text, Some(&*line)),
        Some(found) => {
            let before = text.unwrap_or_default();
            assert!(
                line[before.len()..].starts_with(&ours),
                "{found:?} of {line:?}"
            );
            let is_sound = match found {
                Marker::Exit(code) => (0..=255).contains(&code),
                Marker::Commit(sha) => sha.bytes().all(|byte| byte.is_ascii_hexdigit()),
                Marker::SetUp
                | Marker::Start
                | Marker::Timeout
                | Marker::Fail(_)
                | Marker::Uploading
                | Marker::Uploaded(_)
                | Marker::Ended
                | Marker::Other => true,
            };
            assert!(is_sound, "{line:?}");
        }
    }
    // The text of a command that knows everything but the nonce.
    let forged = line.replace(NONCE, &NONCE.replace('0', "1"));
    assert_eq!(marker::split(NONCE, &forged), (Some(&*forged), None));
    let honest = format!("{forged}{ours}exit:3");
    let expected = (!forged.is_empty()).then_some(&*forged);
    assert_eq!(
        marker::split(NONCE, &honest),
        (expected, Some(Marker::Exit(3)))
    );
}
