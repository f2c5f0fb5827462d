//! A TEST's double of TensorRT: the plan, a file format of its own: magic, TensorRT's
//! version, compute capability, profiles, the ONNX, and a checksum over all of it.
//! Numbers are little-endian.

use crate::device::Device;

const MAGIC: &[u8; 8] = b"GPUDOUBL";

/// Minimum, optimum and maximum of an input's shape.
pub(super) type Range = [Vec<i64>; 3];

/// A range for each input of a name.
pub(super) type Profile = Vec<(String, Range)>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) profiles: Vec<Profile>,
    pub(super) onnx: Vec<u8>,
}

/// FNV-1a.
fn checksum(bytes: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, step)
}

fn put(bytes: &mut Vec<u8>, number: usize) {
    bytes.extend((number as u64).to_le_bytes());
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn number(&mut self) -> Option<usize> {
        let bytes = self.bytes(8)?.try_into().ok()?;
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    }

    fn size(&mut self) -> Option<i64> {
        Some(i64::from_le_bytes(self.bytes(8)?.try_into().ok()?))
    }
}

fn number(value: i32) -> usize {
    usize::try_from(value).unwrap_or(0)
}

pub(super) fn write(plan: &Plan, device: &Device) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    put(&mut bytes, number(device.tensorrt));
    put(&mut bytes, number(10 * device.capability.0 + device.capability.1));
    put(&mut bytes, plan.profiles.len());
    for profile in &plan.profiles {
        put(&mut bytes, profile.len());
        for (name, range) in profile {
            put(&mut bytes, name.len());
            bytes.extend(name.as_bytes());
            for shape in range {
                put(&mut bytes, shape.len());
                shape.iter().for_each(|size| bytes.extend(size.to_le_bytes()));
            }
        }
    }
    put(&mut bytes, plan.onnx.len());
    bytes.extend(&plan.onnx);
    let sum = checksum(&bytes);
    bytes.extend(sum.to_le_bytes());
    bytes
}

/// Reads a plan, or says in TensorRT's manner why not.
pub(super) fn read(bytes: &[u8], device: &Device) -> Result<Plan, String> {
    let magic =
        |bytes: &[u8]| bytes.iter().take(4).rev().fold(0_u32, |sum, b| sum << 8 | u32::from(*b));
    if !bytes.starts_with(MAGIC) {
        return Err(format!(
            "Error Code 1: Serialization (Serialization assertion header.magicTag == \
             kEXPECTED_MAGIC_TAG failed.Trying to load an engine created with incompatible \
             serialization version. Check that the engine was not created using safety runtime, \
             same OS was used and version compatibility parameters were set accordingly. ({} != \
             {}))",
            magic(bytes),
            magic(MAGIC)
        ));
    }
    let (body, sum) = bytes.split_at(bytes.len().saturating_sub(8));
    let mut reader = Reader(body);
    reader.bytes(MAGIC.len());
    let (version, capability) = (reader.number(), reader.number());
    if version != Some(number(device.tensorrt)) {
        return Err(format!(
            "Error Code 1: Serialization (Serialization assertion stdVersionRead == \
             kSERIALIZATION_VERSION failed.Version tag does not match. Note: Current Version: {}, \
             Serialized Engine Version: {})",
            device.tensorrt,
            version.unwrap_or(0)
        ));
    }
    let here = number(10 * device.capability.0 + device.capability.1);
    let there = capability.unwrap_or(0);
    if here != there {
        return Err(format!(
            "Error Code 6: API Usage Error (The engine plan file is generated on an incompatible \
             device, expecting compute {}.{} got compute {}.{}, please rebuild.)",
            here / 10,
            here % 10,
            there / 10,
            there % 10
        ));
    }
    let damaged = "Error Code 1: Serialization (Serialization assertion safeVersionRead == \
                   safeSerializationVersion failed.The engine plan file is truncated or damaged)";
    if sum != checksum(body).to_le_bytes() {
        return Err(damaged.to_owned());
    }
    content(&mut reader).ok_or_else(|| damaged.to_owned())
}

fn content(reader: &mut Reader<'_>) -> Option<Plan> {
    let mut profiles = Vec::new();
    for _ in 0..reader.number()? {
        let mut profile = Vec::new();
        for _ in 0..reader.number()? {
            let len = reader.number()?;
            let name = String::from_utf8(reader.bytes(len)?.to_vec()).ok()?;
            let mut range = Range::default();
            for shape in &mut range {
                let count = reader.number()?;
                *shape = (0..count.min(8)).map(|_| reader.size()).collect::<Option<_>>()?;
            }
            profile.push((name, range));
        }
        profiles.push(profile);
    }
    let len = reader.number()?;
    Some(Plan { profiles, onnx: reader.bytes(len)?.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_as_it_was_written_or_not_at_all() {
        let range = [vec![1, 4], vec![2, 4], vec![8, 4]];
        let plan = Plan { profiles: vec![vec![("x".to_owned(), range)]], onnx: vec![1, 2, 3] };
        let device = Device::default();
        let bytes = write(&plan, &device);
        assert_eq!(read(&bytes, &device).unwrap(), plan);
        let error = |bytes: &[u8], device: &Device| read(bytes, device).unwrap_err();
        assert!(error(b"garbage", &device).contains("magicTag"));
        assert!(error(&bytes[..bytes.len() - 1], &device).contains("damaged"));
        let mut newer = device.clone();
        newer.tensorrt = 101_600;
        assert!(error(&bytes, &newer).contains("Current Version: 101600"));
        let mut other = device.clone();
        other.capability = (8, 6);
        assert!(error(&bytes, &other).contains("expecting compute 8.6 got compute 8.9"));
        let mut damaged = bytes;
        damaged[60] ^= 1;
        assert!(error(&damaged, &device).contains("damaged"));
    }
}
