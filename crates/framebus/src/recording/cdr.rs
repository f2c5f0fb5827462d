//! CDR, little endian, as ROS 2 writes it (OMG DDS-RTPS 9.3, XCDR version 1): a head of four
//! bytes, then fields aligned to their size, counted from behind the head.

/// What every message begins with: CDR, little endian, no options.
const HEAD: [u8; 4] = [0, 1, 0, 0];

/// Writes one message into a buffer that is used again and again.
pub(super) struct Writer<'a>(&'a mut Vec<u8>);

impl<'a> Writer<'a> {
    /// Empties the buffer and begins a message.
    pub(super) fn new(buffer: &'a mut Vec<u8>) -> Self {
        buffer.clear();
        buffer.extend_from_slice(&HEAD);
        Self(buffer)
    }

    fn align(&mut self, size: usize) {
        let at = self.0.len() - HEAD.len();
        self.0.resize(HEAD.len() + at.next_multiple_of(size), 0);
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn f64(&mut self, value: f64) {
        self.align(8);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Length of a sequence; its elements follow.
    pub(super) fn count(&mut self, elements: usize) {
        self.u32(elements as u32);
    }

    pub(super) fn text(&mut self, text: &str) {
        // With the zero at the end, which CDR counts.
        self.count(text.len() + 1);
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    /// `builtin_interfaces/Time`.
    pub(super) fn time(&mut self, wall_ns: u64) {
        self.u32((wall_ns / 1_000_000_000) as u32);
        self.u32((wall_ns % 1_000_000_000) as u32);
    }

    /// A sequence of bytes, or bytes that are fields already.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

/// Reads one message; every answer is `None` where it ends too early.
pub(super) struct Reader<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// `None` for a message in another representation.
    pub(super) fn new(message: &'a [u8]) -> Option<Self> {
        let body = message.strip_prefix(&HEAD)?;
        Some(Self { body, at: 0 })
    }

    pub(super) fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let bytes = self.body.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.at = self.at.next_multiple_of(4);
        let bytes = self.bytes(4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = self.u32()? as usize;
        let text = self.bytes(length)?.strip_suffix(&[0])?;
        std::str::from_utf8(text).ok()
    }
}
