//! Fragmented MP4 of one video track: what stands in front, and one fragment after the
//! other. Layouts: ISO/IEC 14496-12 (boxes, fragments) and 14496-15 (H.264 and H.265 in
//! them). A file that ends behind any fragment is whole.

use framebus_client::Codec;

/// Units of time in a second.
pub(crate) const TIMESCALE: u64 = 90_000;
/// A frame that decoding can begin at: depends on no other (`sample_depends_on` = 2).
const KEY_FLAGS: u32 = 0x0200_0000;
/// Another one: depends on others, is no point to begin at.
const DELTA_FLAGS: u32 = 0x0101_0000;
/// The matrix that turns nothing, 16.16 and 2.30 fixed point.
const UNITY: [u32; 9] = [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000];

/// Units of [`TIMESCALE`].
pub(crate) fn ticks(ns: i64) -> i64 {
    (i128::from(ns) * i128::from(TIMESCALE) / 1_000_000_000) as i64
}

/// The track.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Track<'a> {
    pub(crate) codec: Codec,
    /// Payload of `avcC` or `hvcC`.
    pub(crate) config: &'a [u8],
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Ticks from the decoding of the first frame to its presentation, which is the
    /// beginning of the movie.
    pub(crate) delay: u32,
}

/// One frame of a fragment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample<'a> {
    pub(crate) key: bool,
    /// Ticks until the next one is decoded.
    pub(crate) duration: u32,
    /// Ticks from its decoding to its presentation.
    pub(crate) offset: i32,
    pub(crate) data: &'a [u8],
}

fn put<const N: usize>(out: &mut Vec<u8>, numbers: [u32; N]) {
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_be_bytes()));
}

fn put16<const N: usize>(out: &mut Vec<u8>, numbers: [u16; N]) {
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_be_bytes()));
}

/// A box: its size, its name, its body.
fn boxed(out: &mut Vec<u8>, name: &[u8; 4], body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    put(out, [0]);
    out.extend_from_slice(name);
    body(out);
    let size = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
}

/// A box with version and flags.
fn full(
    out: &mut Vec<u8>,
    name: &[u8; 4],
    version: u32,
    flags: u32,
    body: impl FnOnce(&mut Vec<u8>),
) {
    boxed(out, name, |out| {
        put(out, [version << 24 | flags]);
        body(out);
    });
}

/// What stands in front of the fragments: `ftyp`, `moov`.
pub(crate) fn head(track: &Track<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    boxed(&mut out, b"ftyp", |out| {
        out.extend_from_slice(b"iso6");
        put(out, [0]);
        out.extend_from_slice(b"iso6isommp41");
    });
    boxed(&mut out, b"moov", |out| {
        full(out, b"mvhd", 0, 0, |out| {
            // Made, changed, timescale, duration: that of the fragments.
            put(out, [0, 0, 1000, 0]);
            // Rate 1, volume 1, reserved.
            put(out, [0x1_0000, 0x0100_0000, 0, 0]);
            put(out, UNITY);
            put(out, [0; 6]);
            // The next track would be the second.
            put(out, [2]);
        });
        boxed(out, b"trak", |out| trak(out, track));
        boxed(out, b"mvex", |out| {
            // Track, description, and defaults that every fragment overrides.
            full(out, b"trex", 0, 0, |out| put(out, [1, 1, 0, 0, 0]));
        });
    });
    out
}

fn trak(out: &mut Vec<u8>, track: &Track<'_>) {
    // Enabled, in the movie.
    full(out, b"tkhd", 0, 3, |out| {
        put(out, [0, 0, 1, 0, 0]);
        // Reserved, layer, group, volume.
        put(out, [0, 0, 0, 0]);
        put(out, UNITY);
        put(out, [track.width << 16, track.height << 16]);
    });
    if track.delay > 0 {
        boxed(out, b"edts", |out| {
            // One edit as long as the fragments, from the first presentation on, at rate 1.
            full(out, b"elst", 0, 0, |out| put(out, [1, 0, track.delay, 0x1_0000]));
        });
    }
    boxed(out, b"mdia", |out| {
        full(out, b"mdhd", 0, 0, |out| {
            put(out, [0, 0, TIMESCALE as u32, 0]);
            // Language "und", five bits a letter.
            put16(out, [0x55c4, 0]);
        });
        full(out, b"hdlr", 0, 0, |out| {
            put(out, [0]);
            out.extend_from_slice(b"vide");
            put(out, [0; 3]);
            out.extend_from_slice(b"video\0");
        });
        boxed(out, b"minf", |out| {
            full(out, b"vmhd", 0, 1, |out| put(out, [0, 0]));
            boxed(out, b"dinf", |out| {
                full(out, b"dref", 0, 0, |out| {
                    put(out, [1]);
                    // The data are in this file.
                    full(out, b"url ", 0, 1, |_| {});
                });
            });
            boxed(out, b"stbl", |out| {
                full(out, b"stsd", 0, 0, |out| {
                    put(out, [1]);
                    sample_entry(out, track);
                });
                // No samples outside of fragments.
                full(out, b"stts", 0, 0, |out| put(out, [0]));
                full(out, b"stsc", 0, 0, |out| put(out, [0]));
                full(out, b"stsz", 0, 0, |out| put(out, [0, 0]));
                full(out, b"stco", 0, 0, |out| put(out, [0]));
            });
        });
    });
}

fn sample_entry(out: &mut Vec<u8>, track: &Track<'_>) {
    let (entry, config) = match track.codec {
        Codec::H264 => (b"avc1", b"avcC"),
        Codec::H265 => (b"hvc1", b"hvcC"),
    };
    boxed(out, entry, |out| {
        // Reserved, then which data reference.
        put16(out, [0, 0, 0, 1]);
        put(out, [0; 4]);
        let side = |pixels: u32| u16::try_from(pixels).unwrap_or(u16::MAX);
        put16(out, [side(track.width), side(track.height)]);
        // 72 dpi twice, reserved, one frame a sample.
        put(out, [0x48_0000, 0x48_0000, 0]);
        put16(out, [1]);
        // Name of the compressor: none.
        out.extend_from_slice(&[0; 32]);
        // Depth 24, no colour table.
        put16(out, [24, 0xffff]);
        boxed(out, config, |out| out.extend_from_slice(track.config));
    });
}

/// The `number`th fragment (from 1), whose first frame is decoded at `start` ticks: `moof`,
/// `mdat`.
pub(crate) fn fragment(number: u32, start: u64, samples: &[Sample<'_>]) -> Vec<u8> {
    let bytes: usize = samples.iter().map(|sample| sample.data.len()).sum();
    let mut out = Vec::with_capacity(bytes + 128 + 16 * samples.len());
    let mut data_offset = 0;
    boxed(&mut out, b"moof", |out| {
        full(out, b"mfhd", 0, 0, |out| put(out, [number]));
        boxed(out, b"traf", |out| {
            // Offsets count from this moof.
            full(out, b"tfhd", 0, 0x02_0000, |out| put(out, [1]));
            full(out, b"tfdt", 1, 0, |out| out.extend_from_slice(&start.to_be_bytes()));
            // Offset of the data; of each sample duration, size, flags and offset, which
            // version 1 has with a sign.
            full(out, b"trun", 1, 0x1 | 0x100 | 0x200 | 0x400 | 0x800, |out| {
                put(out, [samples.len() as u32]);
                data_offset = out.len();
                put(out, [0]);
                for sample in samples {
                    let flags = if sample.key { KEY_FLAGS } else { DELTA_FLAGS };
                    let size = sample.data.len() as u32;
                    put(out, [sample.duration, size, flags, sample.offset as u32]);
                }
            });
        });
    });
    let data = (out.len() + 8) as u32;
    out[data_offset..data_offset + 4].copy_from_slice(&data.to_be_bytes());
    boxed(&mut out, b"mdat", |out| {
        samples.iter().for_each(|sample| out.extend_from_slice(sample.data));
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names and bodies of the boxes in `bytes`.
    fn boxes(mut bytes: &[u8]) -> Vec<(String, &[u8])> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let size = u32::from_be_bytes(bytes[..4].try_into().expect("four")) as usize;
            let name = String::from_utf8_lossy(&bytes[4..8]).into_owned();
            found.push((name, &bytes[8..size]));
            bytes = &bytes[size..];
        }
        found
    }

    fn names(bytes: &[u8]) -> Vec<String> {
        boxes(bytes).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn boxes_nest_as_the_standard_says() {
        let track =
            Track { codec: Codec::H265, config: b"config", width: 64, height: 48, delay: 0 };
        let head = head(&track);
        assert_eq!(names(&head), ["ftyp", "moov"]);
        let moov = boxes(&head)[1].1;
        assert_eq!(names(moov), ["mvhd", "trak", "mvex"]);
        assert_eq!(boxes(moov)[0].1.len(), 100, "mvhd");
        let trak = boxes(boxes(moov)[1].1);
        assert_eq!((trak[0].0.as_str(), trak[0].1.len()), ("tkhd", 84));
        let delayed = super::head(&Track { delay: 7200, ..track });
        assert!(delayed.windows(8).any(|bytes| bytes == b"\0\0\x1c\x20\0\x01\0\0"), "elst");
        let at = head.windows(4).position(|four| four == b"hvcC").expect("its configuration");
        assert_eq!(&head[at + 4..at + 10], b"config");
    }

    #[test]
    fn data_lie_where_the_fragment_says() {
        let sample =
            |key, data| Sample { key, duration: 3000, offset: if key { 0 } else { -1500 }, data };
        let fragment = fragment(7, 1 << 40, &[sample(true, b"abc"), sample(false, b"de")]);
        assert_eq!(names(&fragment), ["moof", "mdat"]);
        let traf = boxes(boxes(&fragment)[0].1)[1].1;
        assert_eq!(names(traf), ["tfhd", "tfdt", "trun"]);
        let trun = boxes(traf)[2].1;
        let number = |at: usize| u32::from_be_bytes(trun[at..at + 4].try_into().expect("four"));
        assert_eq!(number(4), 2);
        assert_eq!(&fragment[number(8) as usize..], b"abcde");
        assert_eq!([number(12), number(16), number(20), number(24)], [3000, 3, KEY_FLAGS, 0]);
        assert_eq!(number(40) as i32, -1500);
        assert_eq!(&boxes(traf)[1].1[4..], (1_u64 << 40).to_be_bytes());
    }
}
