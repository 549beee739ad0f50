//! Files that people write and that are not UTF-8: what they seem to be, and what to do.

/// How much of a file is looked at to tell how it is encoded. Ours.
const SAMPLE: usize = 4096;

/// Why this is no text of UTF-8, in words that go on from the file's name. `None` of what is, and
/// of a NUL byte in it.
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

/// The name of the UTF-16 that a file seems to be in, as iconv knows it: by the mark that it begins
/// with, else by a NUL byte in every second place, which is what the characters of ASCII have
/// there.
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
    // Half of them: what else is in such a file may have none.
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
