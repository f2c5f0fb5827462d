//! Start codes become lengths: H.264 and H.265 in the form that MP4 files hold, from a
//! stream in the form that most hardware decoders want. A parser of GStreamer does it,
//! beside the pipeline and in the thread that brings the buffer.

use crate::packets::Format;
use gst::{glib, prelude::*};
use std::sync::{Arc, Mutex, PoisonError};

/// A parser between two pads of ours.
#[derive(Clone)]
pub(crate) struct Reframer(Arc<Parser>);

struct Parser {
    parser: gst::Element,
    /// Where buffers go in; kept for as long as the parser.
    feed: gst::Pad,
    _end: gst::Pad,
}

impl Reframer {
    /// Makes one for streams of `caps`; `put` gets what comes out, in the thread that
    /// pushes.
    pub(crate) fn new(
        caps: &gst::CapsRef,
        put: impl Fn(&Format, &gst::BufferRef) + Send + Sync + 'static,
    ) -> Result<Self, glib::BoolError> {
        let name = caps.structure(0).map(|structure| structure.name().as_str());
        let (element, form) = match name {
            Some("video/x-h264") => ("h264parse", "avc"),
            Some("video/x-h265") => ("h265parse", "hvc1"),
            _ => return Err(glib::bool_error!("{name:?} is not H.264 or H.265")),
        };
        let parser = gst::ElementFactory::make(element).build()?;
        let wanted = gst::Caps::builder(name.unwrap_or_default())
            .field("stream-format", form)
            .field("alignment", "au")
            .build();
        let template = gst::PadTemplate::new(
            "sink",
            gst::PadDirection::Sink,
            gst::PadPresence::Always,
            &wanted,
        )?;
        let format = Mutex::new(None);
        let end = gst::Pad::builder_from_template(&template)
            .chain_function(move |pad, _, buffer| {
                let mut format = format.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(caps) = pad.current_caps()
                    && format.as_ref().is_none_or(|(known, _)| *known != caps)
                {
                    *format = Format::from_caps(&caps).map(|format| (caps, format));
                }
                if let Some((_, format)) = &*format {
                    put(format, &buffer);
                }
                Ok(gst::FlowSuccess::Ok)
            })
            .build();
        let feed = gst::Pad::builder(gst::PadDirection::Src).build();
        let pad = |name| {
            let pad = parser.static_pad(name);
            pad.ok_or_else(|| glib::bool_error!("{element} has no pad {name}"))
        };
        let link = |from: &gst::Pad, to: &gst::Pad| {
            from.link(to).map_err(|error| glib::bool_error!("{error}"))
        };
        link(&feed, &pad("sink")?)?;
        link(&pad("src")?, &end)?;
        let reframer = Self(Arc::new(Parser { parser, feed, _end: end.clone() }));
        let Parser { parser, feed, .. } = &*reframer.0;
        feed.set_active(true)?;
        end.set_active(true)?;
        parser
            .set_state(gst::State::Playing)
            .map_err(|error| glib::bool_error!("{element}: {error}"))?;
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        for event in [
            gst::event::StreamStart::new("packets"),
            gst::event::Caps::new(&caps.to_owned()),
            gst::event::Segment::new(&segment),
        ] {
            if !feed.push_event(event) {
                return Err(glib::bool_error!("{element} does not take {caps}"));
            }
        }
        Ok(reframer)
    }

    /// Puts a buffer through.
    pub(crate) fn push(&self, buffer: gst::Buffer) {
        // What the parser refuses is lost for sinks alone; they see the gap in time.
        let _ = self.0.feed.push(buffer);
    }
}

impl Drop for Parser {
    fn drop(&mut self) {
        let _ = self.feed.set_active(false);
        let _ = self.parser.set_state(gst::State::Null);
    }
}
