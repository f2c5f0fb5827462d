//! Frames that a hardware decoder has in a device's memory, and their way into ours.
//!
//! ```text
//! nvh264dec, system memory ────────────────────────────────────→ head   (no max_width)
//! nvh264dec, CUDA memory → cudaconvertscale → cudadownload ────→ head   (max_width)
//! nvv4l2decoder, NVMM → nvvidconv ─────────────────────────────→ head   (Jetson)
//! vah264dec, VA memory → vapostproc ───────────────────────────→ head   (max_width)
//! ```
//!
//! Pixels leave the device once, in the size that is published. Where nothing is to be made
//! smaller, a decoder that can deliver system memory is asked for it: it then downloads each
//! frame into the buffer that is there for it, and that is a sample on loan
//! ([`crate::pool`]). Which elements there are and what they take is from GStreamer's and
//! NVIDIA's documentation. On hardware none of it was tried; doubles of the elements are
//! (`doubles.rs`).

use crate::layout::scaled;
use gst::{PadProbeReturn, PadProbeType, glib, prelude::*};
use gst_video::VideoInfo;
use std::sync::{Arc, Mutex, PoisonError};

/// Names in the pipeline of what stands behind the decoder.
pub(crate) const CONVERTER: &str = "device-converter";
const FILTER: &str = "device-filter";
const DOWNLOAD: &str = "device-download";

const SYSTEM: &str = "memory:SystemMemory";

/// Elements between a decoder and system memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    /// Makes frames smaller, and NV12 of other formats.
    converter: Option<Converter>,
    /// Brings frames into system memory, where the converter does not.
    download: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Converter {
    element: &'static str,
    /// Its frames stay in the device.
    stays: bool,
    /// It changes sizes only.
    scales_only: bool,
}

impl Converter {
    /// One that also brings frames into system memory.
    fn out(element: &'static str) -> Self {
        Self { element, stays: false, scales_only: false }
    }
}

/// The way out of `memory` with the elements that there are; `scale`: frames may have to be
/// made smaller.
fn way(memory: &str, scale: bool, has: &dyn Fn(&str) -> bool) -> Option<Way> {
    let first = |names: &[&'static str]| names.iter().copied().find(|name| has(name));
    match memory {
        "memory:CUDAMemory" => {
            let download = first(&["cudadownload"])?;
            let scaler = first(&["cudaconvertscale", "cudascale"]).filter(|_| scale);
            let converter = scaler.map(|element| Converter {
                element,
                stays: true,
                scales_only: element == "cudascale",
            });
            Some(Way { converter, download: Some(download) })
        }
        // nvvidconv is Jetson's, nvvideoconvert DeepStream's. Either is needed anyway.
        "memory:NVMM" => first(&["nvvidconv", "nvvideoconvert"]).map(out_by),
        "memory:VAMemory" | "memory:DMABuf" => first(&["vapostproc"]).map(out_by),
        "memory:VASurface" => first(&["vaapipostproc"]).map(out_by),
        "memory:GLMemory" => {
            first(&["gldownload"]).map(|name| Way { converter: None, download: Some(name) })
        }
        _ => None,
    }
}

fn out_by(element: &'static str) -> Way {
    Way { converter: Some(Converter::out(element)), download: None }
}

fn has(element: &str) -> bool {
    gst::ElementFactory::find(element).is_some()
}

/// The device's memory that caps are about; `None` for system memory.
fn device_memory(features: &gst::CapsFeaturesRef) -> Option<String> {
    if features.is_any() {
        return None;
    }
    // Features that are no memory (format:Interlaced, meta:…) say nothing of where it is.
    let memory = |feature: &str| feature.starts_with("memory:") && feature != SYSTEM;
    features.iter().find(|feature| memory(feature.as_str())).map(|feature| feature.to_string())
}

/// What of a decoder's `template` is asked for; `None` where there is no choice.
fn preferred(template: &gst::Caps, scale: bool, has: &dyn Fn(&str) -> bool) -> Option<gst::Caps> {
    let only = |wanted: &dyn Fn(Option<&str>) -> bool| {
        let mut caps = gst::Caps::new_empty();
        for (structure, features) in template.iter_with_features() {
            if wanted(device_memory(features).as_deref()) {
                let (structure, features) = (structure.to_owned(), features.to_owned());
                caps.make_mut().append_structure_full(structure, Some(features));
            }
        }
        (!caps.is_empty()).then_some(caps)
    };
    let made_smaller = |memory: &str| way(memory, true, has).is_some_and(|w| w.converter.is_some());
    let in_device = || only(&|memory: Option<&str>| memory.is_some_and(made_smaller));
    let preferred = if scale { in_device() } else { None };
    let preferred = preferred.or_else(|| only(&|memory: Option<&str>| memory.is_none()))?;
    (preferred.size() < template.size()).then_some(preferred)
}

/// Asks a decoder for the memory that its frames are best taken from: without an answer it
/// would choose by itself, before anything is linked to it.
pub(crate) fn prefer(decoder: &gst::Element, max_width: Option<u32>) {
    let Some(pad) = decoder.static_pad("src") else { return };
    let Some(preferred) = preferred(&pad.pad_template_caps(), max_width.is_some(), &has) else {
        return;
    };
    pad.add_probe(PadProbeType::QUERY_DOWNSTREAM, move |_, info| {
        let Some(query) = info.query_mut() else { return PadProbeReturn::Ok };
        let gst::QueryViewMut::Caps(query) = query.view_mut() else { return PadProbeReturn::Ok };
        let answer = match query.filter_owned() {
            Some(filter) => filter.intersect_with_mode(&preferred, gst::CapsIntersectMode::First),
            None => preferred.clone(),
        };
        query.set_result(&answer);
        PadProbeReturn::Handled
    });
}

/// Caps of what a converter is to make of the decoder's frames.
fn converted(
    input: &gst::CapsRef,
    max_width: Option<u32>,
    converter: Converter,
) -> Option<gst::Caps> {
    let (structure, features) = (input.structure(0)?, input.features(0)?);
    let side = |name| structure.get::<i32>(name).ok().and_then(|side| u32::try_from(side).ok());
    let (width, height) = scaled(side("width")?, side("height")?, max_width);
    let mut caps = gst::Caps::builder("video/x-raw")
        .field("width", i32::try_from(width).ok()?)
        .field("height", i32::try_from(height).ok()?);
    if !converter.scales_only {
        caps = caps.field("format", "NV12");
    }
    // NVIDIA's converters leave it as it is, and know no such field.
    if let Ok(aspect) = structure.get::<gst::Fraction>("pixel-aspect-ratio")
        && !converter.element.starts_with("nv")
    {
        caps = caps.field("pixel-aspect-ratio", aspect);
    }
    let mut caps = caps.build();
    if converter.stays {
        caps.make_mut().set_features_simple(Some(features.to_owned()));
    }
    Some(caps)
}

/// Colours that the stream states, or those of its height.
fn colorimetry(caps: &gst::CapsRef) -> Option<String> {
    match caps.structure(0)?.get::<&str>("colorimetry") {
        Ok(stated) => Some(stated.to_owned()),
        Err(_) => VideoInfo::from_caps(caps).ok().map(|info| info.colorimetry().to_string()),
    }
    .filter(|text| !text.is_empty())
}

/// `caps` with the colours of the stream, where they are silent: the smaller picture of an
/// HD stream would be read as SD.
fn with_colours(caps: &gst::CapsRef, stream: Option<&str>) -> Option<gst::Caps> {
    let colours = stream?;
    let structure = caps.structure(0)?;
    if structure.has_field("colorimetry") {
        return None;
    }
    let mut caps = caps.to_owned();
    caps.make_mut().set("colorimetry", colours);
    Some(caps)
}

/// Links a decoder's pad to `head`, through what brings its frames into system memory.
pub(crate) fn link(
    pad: &gst::Pad,
    caps: &gst::Caps,
    head: &gst::Element,
    max_width: Option<u32>,
) -> Result<(), glib::BoolError> {
    let no_pad = || glib::bool_error!("no pad to link to");
    let memory = caps.features(0).and_then(device_memory);
    let Some(memory) = memory else {
        let sink = head.static_pad("sink").ok_or_else(no_pad)?;
        pad.link(&sink).map_err(|error| glib::bool_error!("{error}"))?;
        return Ok(());
    };
    let way = way(&memory, max_width.is_some(), &has)
        .ok_or_else(|| glib::bool_error!("frames in {memory} cannot be read"))?;
    let bin = head
        .parent()
        .and_downcast::<gst::Bin>()
        .ok_or_else(|| glib::bool_error!("the pipeline is gone"))?;
    let make = |element: &str, name: &str| {
        // A second stream, or the next one after a change, has its own.
        let builder = gst::ElementFactory::make(element);
        if bin.by_name(name).is_some() { builder.build() } else { builder.name(name).build() }
    };
    let mut chain = Vec::new();
    if let Some(converter) = way.converter {
        let (element, filter) = (make(converter.element, CONVERTER)?, make("capsfilter", FILTER)?);
        if element.has_property("add-borders") {
            // Rounded sizes are stretched by a pixel, as in software: black rows would move
            // the boxes.
            element.set_property("add-borders", false);
        }
        let sink = element.static_pad("sink").ok_or_else(no_pad)?;
        let out = filter.static_pad("src").ok_or_else(no_pad)?;
        follow(&sink, &filter, &out, max_width, converter);
        chain.extend([element, filter]);
    }
    if let Some(download) = way.download {
        chain.push(make(download, DOWNLOAD)?);
    }
    bin.add_many(&chain)?;
    gst::Element::link_many(chain.iter().chain([head]))?;
    // The last first, so that none of them pushes into one that does not run.
    for element in chain.iter().rev() {
        element.sync_state_with_parent()?;
    }
    let sink = chain.first().and_then(|first| first.static_pad("sink")).ok_or_else(no_pad)?;
    pad.link(&sink).map_err(|error| glib::bool_error!("{error}"))?;
    Ok(())
}

/// Keeps size and colours behind the converter at what the stream is, which may change.
fn follow(
    sink: &gst::Pad,
    filter: &gst::Element,
    out: &gst::Pad,
    max_width: Option<u32>,
    converter: Converter,
) {
    let colours = Arc::new(Mutex::new(None));
    let (of_stream, filter) = (colours.clone(), filter.downgrade());
    sink.add_probe(PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let Some(gst::EventView::Caps(event)) = info.event().map(|event| event.view()) else {
            return PadProbeReturn::Ok;
        };
        *of_stream.lock().unwrap_or_else(PoisonError::into_inner) = colorimetry(event.caps());
        if let Some(filter) = filter.upgrade()
            && let Some(caps) = converted(event.caps(), max_width, converter)
            && filter.property::<gst::Caps>("caps") != caps
        {
            // Before the converter sees the event and negotiates.
            filter.set_property("caps", caps);
        }
        PadProbeReturn::Ok
    });
    out.add_probe(PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let Some(gst::EventView::Caps(event)) = info.event().map(|event| event.view()) else {
            return PadProbeReturn::Ok;
        };
        let colours = colours.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(caps) = with_colours(event.caps(), colours.as_deref()) {
            let seqnum = event.seqnum();
            let event = gst::event::Caps::builder(&caps).seqnum(seqnum).build();
            info.data = Some(gst::PadProbeData::Event(event));
        }
        PadProbeReturn::Ok
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUDA: &str = "memory:CUDAMemory";
    const NVMM: &str = "memory:NVMM";
    const VA: &str = "memory:VAMemory";

    /// `converter(stays?) ! download`, as the elements of `machine` allow.
    fn text(memory: &str, scale: bool, machine: &[&str]) -> Option<String> {
        let way = way(memory, scale, &|name| machine.contains(&name))?;
        let converter = way.converter.map(|c| {
            let place = if c.stays { "device" } else { "system" };
            let format = if c.scales_only { "" } else { ",NV12" };
            format!("{} ! {place}{format}", c.element)
        });
        let parts: Vec<_> = converter.into_iter().chain(way.download.map(str::to_owned)).collect();
        Some(parts.join(" ! "))
    }

    #[test]
    fn frames_get_smaller_before_they_leave_the_device() {
        let pc = ["cudaconvertscale", "cudascale", "cudadownload", "vapostproc", "gldownload"];
        let old = ["cudascale", "cudadownload"];
        let jetson = ["nvvidconv"];
        for (memory, scale, machine, expected) in [
            (CUDA, true, &pc[..], Some("cudaconvertscale ! device,NV12 ! cudadownload")),
            (CUDA, false, &pc, Some("cudadownload")),
            (CUDA, true, &old, Some("cudascale ! device ! cudadownload")),
            (CUDA, true, &old[1..], Some("cudadownload")),
            (CUDA, true, &[], None),
            (NVMM, true, &jetson, Some("nvvidconv ! system,NV12")),
            (NVMM, false, &jetson, Some("nvvidconv ! system,NV12")),
            (NVMM, false, &["nvvideoconvert"], Some("nvvideoconvert ! system,NV12")),
            (NVMM, false, &pc, None),
            (VA, true, &pc, Some("vapostproc ! system,NV12")),
            (VA, true, &jetson, None),
            ("memory:GLMemory", true, &pc, Some("gldownload")),
            ("memory:Unheard", true, &pc, None),
        ] {
            let text = text(memory, scale, machine);
            assert_eq!(text.as_deref(), expected, "{memory} {scale} {machine:?}");
        }
    }

    #[test]
    fn a_decoder_is_asked_for_the_memory_that_costs_least() {
        gst::init().expect("GStreamer");
        let nvh264dec: gst::Caps = "video/x-raw,format=NV12;\
             video/x-raw(memory:GLMemory),format=NV12;video/x-raw(memory:CUDAMemory),format=NV12"
            .parse()
            .expect("caps");
        let asked = |template: &gst::Caps, scale, machine: &[&str]| {
            let caps = preferred(template, scale, &|name| machine.contains(&name));
            caps.map(|caps| caps.to_string())
        };
        let pc = ["cudaconvertscale", "cudadownload", "gldownload"];
        let system = Some("video/x-raw, format=(string)NV12".to_owned());
        let cuda = Some("video/x-raw(memory:CUDAMemory), format=(string)NV12".to_owned());
        assert_eq!(asked(&nvh264dec, false, &pc), system);
        assert_eq!(asked(&nvh264dec, true, &pc), cuda);
        // The processor then makes them smaller.
        assert_eq!(asked(&nvh264dec, true, &["cudadownload"]), system);
        // No choice, no question.
        let jetson: gst::Caps = "video/x-raw(memory:NVMM)".parse().expect("caps");
        assert_eq!(asked(&jetson, true, &["nvvidconv"]), None);
        let software: gst::Caps =
            "video/x-raw,format=I420;video/x-raw,format=Y444".parse().expect("caps");
        assert_eq!(asked(&software, true, &pc), None);
    }

    #[test]
    fn sizes_formats_and_colours_behind_the_converter() {
        gst::init().expect("GStreamer");
        let caps = |text: &str| text.parse::<gst::Caps>().expect("caps");
        let input = caps(
            "video/x-raw(memory:CUDAMemory),format=P010_10LE,width=1920,height=1080,\
             pixel-aspect-ratio=1/1",
        );
        let of = |element, stays, scales_only| Converter { element, stays, scales_only };
        for (converter, expected) in [
            (
                of("cudaconvertscale", true, false),
                "video/x-raw(memory:CUDAMemory),format=NV12,width=640,height=360,\
                 pixel-aspect-ratio=1/1",
            ),
            (
                of("cudascale", true, true),
                "video/x-raw(memory:CUDAMemory),width=640,height=360,pixel-aspect-ratio=1/1",
            ),
            (of("nvvidconv", false, false), "video/x-raw,format=NV12,width=640,height=360"),
        ] {
            let made = converted(&input, Some(640), converter).expect("video");
            assert!(made.is_strictly_equal(&caps(expected)) || made == caps(expected), "{made}");
        }
        let small = caps("video/x-raw,format=NV12,width=640,height=360");
        assert_eq!(colorimetry(&input).as_deref(), Some("bt709"));
        let told = with_colours(&small, Some("bt709")).expect("silent before");
        assert_eq!(colorimetry(&told).as_deref(), Some("bt709"));
        assert_eq!(with_colours(&told, Some("bt601")), None);
    }
}
