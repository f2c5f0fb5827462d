//! Protocol buffers as a list of fields, whatever they mean.
//!
//! Decoding a model into messages and encoding it again would drop every field that
//! is not declared here. So what stays is copied as it lies in the file.

use bytes::Bytes;

/// One field of a message.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) number: u64,
    /// Key and value, as in the file.
    pub(crate) raw: Bytes,
    /// The value of a string, bytes or message; empty for numbers.
    pub(crate) content: Bytes,
}

/// The fields of a message in the order of the file; `None` where it is damaged.
/// Shares the message's memory.
pub(crate) fn fields(message: &Bytes) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    let mut at = 0;
    while at < message.len() {
        let start = at;
        let key = varint(message, &mut at)?;
        let mut content = Bytes::new();
        match key & 7 {
            0 => {
                varint(message, &mut at)?;
            }
            1 => at = at.checked_add(8)?,
            2 => {
                let length = usize::try_from(varint(message, &mut at)?).ok()?;
                let end = at.checked_add(length).filter(|&end| end <= message.len())?;
                content = message.slice(at..end);
                at = end;
            }
            5 => at = at.checked_add(4)?,
            // Groups were never used by ONNX.
            _ => return None,
        }
        if at > message.len() {
            return None;
        }
        fields.push(Field { number: key >> 3, raw: message.slice(start..at), content });
    }
    Some(fields)
}

/// Key and length of a string, bytes or message field, which its content follows.
pub(crate) fn header(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(12);
    put_varint(number << 3 | 2, &mut bytes);
    put_varint(length as u64, &mut bytes);
    bytes
}

/// A whole string, bytes or message field.
pub(crate) fn field(number: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = header(number, content.len());
    bytes.extend_from_slice(content);
    bytes
}

/// The message with the content of every field `number` replaced by what `edit` makes of
/// it, given how many such fields came before; all other bytes stay.
pub(crate) fn edit(
    message: &Bytes,
    number: u64,
    mut edit: impl FnMut(usize, &Bytes) -> Option<Vec<u8>>,
) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(message.len());
    let mut count = 0;
    for part in fields(message)? {
        if part.number == number {
            bytes.extend(field(number, &edit(count, &part.content)?));
            count += 1;
        } else {
            bytes.extend_from_slice(&part.raw);
        }
    }
    Some(bytes)
}

/// The message with the number field `number` set to `value`; all other bytes stay.
pub(crate) fn with_number(message: &Bytes, number: u64, value: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(message.len() + 4);
    for part in fields(message)?.iter().filter(|part| part.number != number) {
        bytes.extend_from_slice(&part.raw);
    }
    bytes.extend(self::number(number, value));
    Some(bytes)
}

/// A whole number field.
pub(crate) fn number(number: u64, value: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(12);
    put_varint(number << 3, &mut bytes);
    put_varint(value, &mut bytes);
    bytes
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn put_varint(mut value: u64, bytes: &mut Vec<u8>) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_split_and_joined_byte_for_byte() {
        // Field 1 varint 300, field 2 "hi", field 1000 fixed32, field 3 fixed64.
        let mut message = vec![0x08, 0xac, 0x02, 0x12, 2, b'h', b'i', 0xc5, 0x3e, 1, 2, 3, 4];
        message.extend([0x19, 1, 2, 3, 4, 5, 6, 7, 8]);
        let message = Bytes::from(message);
        let parts = fields(&message).expect("whole");
        let numbers: Vec<u64> = parts.iter().map(|part| part.number).collect();
        assert_eq!(numbers, [1, 2, 1000, 3]);
        assert_eq!(parts[1].content, "hi");
        let joined: Vec<u8> = parts.iter().flat_map(|part| part.raw.to_vec()).collect();
        assert_eq!(joined, message);
        assert_eq!(edit(&message, 2, |_, content| Some(content.to_vec())).expect("edit"), message);
        let longer = edit(&message, 2, |_, _| Some(vec![b'x'; 300])).expect("edit");
        let parts = fields(&Bytes::from(longer)).expect("whole");
        assert_eq!((parts[1].content.len(), parts[2].raw.len()), (300, 6));
        let other = with_number(&message, 1, 70_000).expect("edit");
        assert_eq!(other[..message.len() - 3], message[3..]);
        assert_eq!(other[message.len() - 3..], [0x08, 0xf0, 0xa2, 0x04]);
        for length in 1..message.len() {
            // A cut inside a field is seen; a cut between two is a shorter message.
            let cut = fields(&message.slice(..length));
            assert_eq!(cut.is_some(), [3, 7, 13].contains(&length), "{length}");
        }
    }
}
