//! Which decoder takes a camera's stream.
//!
//! Decoders are found and linked by `decodebin`, which tries those that fit in the order of
//! their ranks. So the choice is made with ranks, before the pipeline is built: it then
//! holds for every codec, also for a `decodebin` inside a `gst:` source, and a decoder that
//! does not start gives way to the next one. Ranks are this process's own, and a process has
//! one camera.
//!
//! Which elements a family has is known from GStreamer's and NVIDIA's documentation; only
//! software decoders and doubles of the others were there to try.

use crate::error::CaptureError;
use framebus_config::Decoder;
use gst::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Rank of the decoder that is tried first, above every rank that elements come with.
const FIRST: i32 = 1000;
/// Rank of elements that are meant to be taken first (GST_RANK_PRIMARY). `auto` prefers
/// hardware that has it, and leaves what stands behind software where it is: its makers, a
/// distribution or GST_PLUGIN_FEATURE_RANK say in this way not to take it unasked.
const OFFERED: i32 = 256;

/// Who makes the hardware; in the order in which `auto` prefers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    Nvidia,
    Va,
    V4l2,
    /// Hardware without a word of its own.
    Other,
    Software,
}

impl Family {
    /// By the names that elements have: the class of some hardware decoders does not say it
    /// (`nvv4l2decoder`).
    fn of(name: &str, class: &str) -> Self {
        match name {
            _ if name.starts_with("nv") => Self::Nvidia,
            // vah264dec, varenderD129h264dec, and vaapih264dec of before.
            _ if name.starts_with("va") => Self::Va,
            _ if name.starts_with("v4l2") => Self::V4l2,
            _ if class.contains("Hardware") => Self::Other,
            _ => Self::Software,
        }
    }

    /// Whose decoder an element is.
    pub(crate) fn of_factory(factory: &gst::ElementFactory) -> Self {
        Self::of(&factory.name(), factory.metadata("klass").unwrap_or_default())
    }
}

/// Whether elements of this class decode video or pictures.
pub(crate) fn decodes_video(class: &str) -> bool {
    class.contains("Decoder") && (class.contains("Video") || class.contains("Image"))
}

/// A decoder that GStreamer has.
#[derive(Debug, Clone)]
struct Candidate {
    name: String,
    family: Family,
    /// The one that it comes with.
    rank: i32,
    /// The highest of a software decoder of the same streams.
    rival: i32,
}

/// New ranks, one for each decoder that is `found`; `None` where the choice finds nothing.
fn ranks(choice: Decoder, found: &[Candidate]) -> Option<Vec<i32>> {
    let only = match choice {
        Decoder::Auto => None,
        Decoder::Software => Some(Family::Software),
        Decoder::Nvidia => Some(Family::Nvidia),
        Decoder::Va => Some(Family::Va),
        Decoder::V4l2 => Some(Family::V4l2),
    };
    let mut ranks: Vec<i32> = found
        .iter()
        .map(
            |decoder| if only.is_none_or(|only| only == decoder.family) { decoder.rank } else { 0 },
        )
        .collect();
    let mut hardware: Vec<usize> = (0..found.len())
        .filter(|index| {
            let Candidate { family, rank, rival, name } = &found[*index];
            match only {
                Some(only) => only == *family && only != Family::Software,
                // JPEG of cameras is cheap for a processor, and its colours are full range and
                // often 4:2:2, which not every device's decoder keeps.
                None => {
                    *family != Family::Software
                        && *rank >= OFFERED.max(*rival)
                        && !name.contains("jpeg")
                }
            }
        })
        .collect();
    // Frames of nvv4l2decoder have to be converted to get out of NVIDIA's memory: where a PC
    // has it (DeepStream) beside nvcodec, it comes second.
    hardware.sort_by_key(|index| {
        let decoder = &found[*index];
        (decoder.family, decoder.name.starts_with("nvv4l2"), -decoder.rank)
    });
    for (place, index) in hardware.iter().enumerate() {
        ranks[*index] = FIRST - i32::try_from(place).unwrap_or(FIRST);
    }
    let missing = hardware.is_empty() && !matches!(choice, Decoder::Auto | Decoder::Software);
    (!missing).then_some(ranks)
}

/// Lets `decodebin` take the decoders of the camera's choice.
pub(crate) fn choose(choice: Decoder) -> Result<(), CaptureError> {
    // What elements came with, for the next choice in this process.
    static ORIGINAL: Mutex<BTreeMap<String, i32>> = Mutex::new(BTreeMap::new());
    let mut original = ORIGINAL.lock().unwrap_or_else(PoisonError::into_inner);
    let kind = gst::ElementFactoryType::DECODER;
    let all = gst::ElementFactory::factories_with_type(kind, gst::Rank::NONE);
    let factories: Vec<_> = all
        .iter()
        .filter(|factory| decodes_video(factory.metadata("klass").unwrap_or_default()))
        .collect();
    let mut found: Vec<Candidate> = factories
        .iter()
        .map(|factory| {
            let name = factory.name().to_string();
            let rank = *original.entry(name.clone()).or_insert_with(|| rank_of(factory));
            Candidate { name, family: Family::of_factory(factory), rank, rival: 0 }
        })
        .collect();
    for index in 0..found.len() {
        let streams = streams(factories[index]);
        let same = |other: &usize| {
            found[*other].family == Family::Software
                && factories[*other].can_sink_any_caps(&streams)
        };
        let rivals = (0..found.len()).filter(same).map(|other| found[other].rank);
        found[index].rival = rivals.max().unwrap_or(0);
    }
    let ranks = ranks(choice, &found)
        .ok_or(CaptureError::Decoder { choice: choice.as_str(), needs: needs(choice) })?;
    for (factory, rank) in factories.into_iter().zip(ranks) {
        if rank_of(factory) != rank {
            factory.set_rank(gst::Rank::from(rank));
        }
    }
    Ok(())
}

/// What a decoder takes.
fn streams(factory: &gst::ElementFactory) -> gst::Caps {
    let templates = factory.static_pad_templates();
    let mut caps = gst::Caps::new_empty();
    for template in templates.iter().filter(|t| t.direction() == gst::PadDirection::Sink) {
        caps.merge(template.caps());
    }
    caps
}

fn rank_of(factory: &gst::ElementFactory) -> i32 {
    factory.rank().into()
}

/// What has to be installed for a family.
fn needs(choice: Decoder) -> &'static str {
    match choice {
        Decoder::Nvidia => {
            "it needs GStreamer's nvcodec plugin (gstreamer1.0-plugins-bad) and the driver's \
             libnvcuvid.so.1 (libnvcuvid1 or libnvidia-decode; in a container \
             NVIDIA_DRIVER_CAPABILITIES with \"video\"), on Jetson nvidia-l4t-gstreamer"
        }
        Decoder::Va => {
            "it needs GStreamer's va plugin (gstreamer1.0-plugins-bad), a VA driver \
             (intel-media-va-driver or mesa-va-drivers) and access to /dev/dri/renderD128 \
             (group render)"
        }
        Decoder::V4l2 => {
            "it needs GStreamer's v4l2codecs or video4linux2 plugin (gstreamer1.0-plugins-bad, \
             -good) and a decoder of the kernel (/dev/video*, group video)"
        }
        Decoder::Auto | Decoder::Software => "it needs gstreamer1.0-libav",
    }
}

/// A hardware decoder that was offered for what the software decoder `element` decodes: it
/// was tried, and did not start or refused the stream.
pub(crate) fn passed_over(element: &gst::Element) -> Option<String> {
    let factory = element.factory()?;
    if Family::of_factory(&factory) != Family::Software {
        return None;
    }
    let caps = element.static_pad("sink")?.current_caps()?;
    let (kind, taken) = (gst::ElementFactoryType::DECODER, rank_of(&factory));
    let offered = gst::ElementFactory::factories_with_type(kind, gst::Rank::MARGINAL);
    offered
        .iter()
        .filter(|factory| Family::of_factory(factory) != Family::Software)
        .filter(|factory| rank_of(factory) > taken)
        .find(|factory| factory.can_sink_any_caps(&caps))
        .map(|factory| factory.name().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOFTWARE: &str = "Codec/Decoder/Video";
    const HARDWARE: &str = "Codec/Decoder/Video/Hardware";
    const PC: [(&str, &str, i32); 7] = [
        ("avdec_h264", SOFTWARE, 256),
        ("openh264dec", SOFTWARE, 64),
        ("vah264dec", HARDWARE, 257),
        ("vaapih264dec", HARDWARE, 0),
        ("nvh264sldec", HARDWARE, 128),
        ("nvh264dec", HARDWARE, 257),
        ("msdkh264dec", HARDWARE, 0),
    ];
    const JETSON: [(&str, &str, i32); 4] = [
        ("avdec_h264", SOFTWARE, 256),
        ("nvv4l2decoder", SOFTWARE, 267),
        ("nvjpegdec", "Codec/Decoder/Image", 266),
        ("v4l2h264dec", HARDWARE, 257),
    ];

    /// Names in the order in which they are tried.
    fn order(choice: Decoder, decoders: &[(&str, &str, i32)]) -> Option<String> {
        let found: Vec<_> = decoders
            .iter()
            .map(|(name, class, rank)| {
                let family = Family::of(name, class);
                let software = decoders
                    .iter()
                    .filter(|(name, class, _)| Family::of(name, class) == Family::Software);
                let rival = software.map(|(_, _, rank)| *rank).max().unwrap_or(0);
                Candidate { name: (*name).to_owned(), family, rank: *rank, rival }
            })
            .collect();
        let ranks = ranks(choice, &found)?;
        let mut tried: Vec<_> = found.iter().zip(ranks).filter(|(_, rank)| *rank >= 64).collect();
        tried.sort_by_key(|(_, rank)| -rank);
        let names: Vec<_> = tried.iter().map(|(decoder, _)| decoder.name.as_str()).collect();
        Some(names.join(" "))
    }

    #[test]
    fn auto_takes_hardware_that_is_offered_and_keeps_software_behind_it() {
        let order = |decoders: &[_]| order(Decoder::Auto, decoders).expect("always something");
        assert_eq!(order(&PC), "nvh264dec vah264dec avdec_h264 nvh264sldec openh264dec");
        assert_eq!(order(&JETSON), "nvv4l2decoder v4l2h264dec nvjpegdec avdec_h264");
        // What stands behind software by itself stays there, and so does what somebody put
        // there with GST_PLUGIN_FEATURE_RANK.
        assert_eq!(order(&[PC[0], ("qsvh264dec", HARDWARE, 64)]), "avdec_h264 qsvh264dec");
        let raised = [("avdec_h264", SOFTWARE, 300), PC[5]];
        assert_eq!(order(&raised), "avdec_h264 nvh264dec");
        let jpeg = [("jpegdec", "Codec/Decoder/Image", 256), ("nvjpegdec", HARDWARE, 256)];
        assert_eq!(order(&jpeg), "jpegdec nvjpegdec");
        assert_eq!(order(&PC[..2]), "avdec_h264 openh264dec");
        assert_eq!(order(&[]), "");
    }

    #[test]
    fn a_family_is_taken_alone() {
        for (choice, decoders, expected) in [
            (Decoder::Software, &PC[..], Some("avdec_h264 openh264dec")),
            (Decoder::Nvidia, &PC, Some("nvh264dec nvh264sldec")),
            (Decoder::Va, &PC, Some("vah264dec vaapih264dec")),
            (Decoder::V4l2, &PC, None),
            (Decoder::Software, &JETSON, Some("avdec_h264")),
            (Decoder::Nvidia, &JETSON, Some("nvjpegdec nvv4l2decoder")),
            (Decoder::Va, &JETSON, None),
            (Decoder::V4l2, &JETSON, Some("v4l2h264dec")),
            (Decoder::Nvidia, &PC[..2], None),
        ] {
            assert_eq!(order(choice, decoders).as_deref(), expected, "{choice}");
        }
        // DeepStream on a PC.
        let both = [JETSON[1], PC[5]];
        assert_eq!(order(Decoder::Nvidia, &both).as_deref(), Some("nvh264dec nvv4l2decoder"));
    }

    #[test]
    fn what_is_missing_is_said() {
        for (choice, package) in [
            (Decoder::Nvidia, "libnvcuvid.so.1"),
            (Decoder::Nvidia, "nvidia-l4t-gstreamer"),
            (Decoder::Va, "mesa-va-drivers"),
            (Decoder::V4l2, "v4l2codecs"),
        ] {
            let error = CaptureError::Decoder { choice: choice.as_str(), needs: needs(choice) };
            let text = error.to_string();
            assert!(text.contains(package) && text.contains(choice.as_str()), "{text}");
        }
    }
}
