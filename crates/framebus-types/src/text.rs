//! Text of bounded length inside shared memory: UTF-8 in a byte array, padded
//! with zeros.

/// Writes `value` into a field of `N` bytes; what does not fit is cut at a
/// character boundary.
#[must_use]
pub fn pack<const N: usize>(value: &str) -> [u8; N] {
    let mut field = [0; N];
    let mut end = value.len().min(N);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    field[..end].copy_from_slice(&value.as_bytes()[..end]);
    field
}

/// Reads a text field up to its first zero. Bytes that are no UTF-8 end the
/// text: another process wrote them, so they are not trusted.
#[must_use]
pub fn unpack(field: &[u8]) -> &str {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    match std::str::from_utf8(&field[..end]) {
        Ok(value) => value,
        Err(error) => std::str::from_utf8(&field[..error.valid_up_to()]).unwrap_or(""),
    }
}

/// Text from elsewhere (shared memory, a file's metadata) without characters that a
/// terminal would act on.
#[must_use]
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_at_a_character() {
        assert_eq!(pack::<4>("aé€"), [b'a', 0xc3, 0xa9, 0]);
        assert_eq!(unpack(&pack::<4>("aé€")), "aé");
        assert_eq!(unpack(&pack::<8>("")), "");
    }

    #[test]
    fn foreign_bytes_end_the_text() {
        assert_eq!(unpack(&[b'o', b'k', 0xff, b'x']), "ok");
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(plain("a\x1b[2Jb\nc é"), "a?[2Jb?c é");
    }
}
