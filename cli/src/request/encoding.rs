//! Says what encoding a file seems to have if it is not UTF-8, and what to do.

/// How many bytes we read to guess a file's encoding. We chose 4096 because a file's start shows
/// its encoding well enough, however long the file is.
const SAMPLE: usize = 4096;

/// Why the bytes are not UTF-8 text, in words that follow the file's name. `None` for UTF-8, even
/// with a NUL byte in it.
pub(crate) fn fault(bytes: &[u8]) -> Option<String> {
    if let Some(encoding) = utf16(bytes) {
        return Some(format!(
            "is in UTF-16, not in UTF-8: save it as UTF-8, or convert it with `iconv -f {encoding} -t utf-8`"
        ));
    }
    let error = std::str::from_utf8(bytes).err()?;
    let line = 1 + bytes
        .iter()
        .take(error.valid_up_to())
        .filter(|byte| **byte == b'\n')
        .count();
    Some(format!(
        "is not UTF-8 in line {line}: save it as UTF-8, or convert it, as with `iconv -f iso-8859-1 -t utf-8` if it is that"
    ))
}

/// The iconv name of the UTF-16 encoding that a file seems to have. A byte order mark decides.
/// Without one, we look for a NUL byte in every second place, which ASCII characters have in
/// UTF-16.
pub(crate) fn utf16(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Some("utf-16");
    }
    let sample = bytes.get(..SAMPLE).unwrap_or(bytes);
    let pairs: Vec<_> = sample
        .as_chunks::<2>()
        .0
        .iter()
        .map(|[first, second]| (*first == 0, *second == 0))
        .collect();
    let (first, second) = pairs.iter().fold((0, 0), |(first, second), pair| {
        (first + usize::from(pair.0), second + usize::from(pair.1))
    });
    // Half of the pairs are enough: other characters in such a file may have no NUL byte.
    match (first * 2 > pairs.len(), second * 2 > pairs.len()) {
        (false, true) => Some("utf-16le"),
        (true, false) => Some("utf-16be"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn utf16_is_known_with_and_without_its_mark() {
        assert_eq!(
            utf16(&encoded("\u{feff}A=1\n", u16::to_le_bytes)),
            Some("utf-16")
        );
        assert_eq!(
            utf16(&encoded("\u{feff}A=1\n", u16::to_be_bytes)),
            Some("utf-16")
        );
        assert_eq!(utf16(&encoded("A=1\n", u16::to_le_bytes)), Some("utf-16le"));
        assert_eq!(utf16(&encoded("A=1\n", u16::to_be_bytes)), Some("utf-16be"));
        for other in [
            &b""[..],
            b"A=1\n",
            b"A=\0\n",
            b"\0",
            "Ä=ö\n".as_bytes(),
            b"\xff",
        ] {
            assert_eq!(utf16(other), None, "{other:?}");
        }
    }

    #[test]
    fn what_is_not_utf8_is_told_with_its_line_and_a_way_out() {
        assert_eq!(fault("a: ü\n".as_bytes()), None);
        let latin = fault(b"a: b\nc: \xfc\n").unwrap();
        assert!(
            latin.starts_with("is not UTF-8 in line 2: ") && latin.contains("iconv"),
            "{latin}"
        );
        let wide = fault(&encoded("a: b\n", u16::to_le_bytes)).unwrap();
        assert!(
            wide.contains("UTF-16") && wide.contains("`iconv -f utf-16le -t utf-8`"),
            "{wide}"
        );
    }
}
