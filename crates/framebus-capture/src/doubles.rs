//! Tests' doubles of NVIDIA's elements: GStreamer's own software ones in bins that have the
//! names, classes and caps of `nvh264dec`, `cudaconvertscale`, `cudadownload`,
//! `nvv4l2decoder` and `nvvidconv`. "CUDA memory" and "NVMM" are labels on ordinary memory
//! here. What the doubles show is how this crate chooses, links and negotiates; how the real
//! ones behave they cannot show.

use gst::{glib, prelude::*, subclass::prelude::*};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

pub(crate) const CUDA: &str = "memory:CUDAMemory";
pub(crate) const NVMM: &str = "memory:NVMM";

/// The decoders do not start, as without a driver.
pub(crate) static BROKEN: AtomicBool = AtomicBool::new(false);
/// `nvh264dec` does not start.
pub(crate) static JETSON: AtomicBool = AtomicBool::new(false);

/// Adds the doubles of a PC to this process's registry.
pub(crate) fn register() {
    add("nvh264dec", NvH264Dec::static_type());
    add("cudaconvertscale", CudaConvertScale::static_type());
    add("cudadownload", CudaDownload::static_type());
}

/// Adds those of a Jetson. There `nvcodec` finds nothing; what is registered cannot be taken
/// back, and does not start while [`JETSON`] is set.
pub(crate) fn register_jetson() {
    add("nvv4l2decoder", NvV4l2Decoder::static_type());
    add("nvvidconv", NvVidConv::static_type());
}

fn add(name: &str, kind: glib::Type) {
    gst::init().expect("GStreamer");
    gst::Element::register(None, name, gst::Rank::PRIMARY, kind).expect("registered");
}

fn labelled(caps: &gst::Caps, memory: Option<&str>) -> gst::Caps {
    let mut caps = caps.copy();
    let features = memory.map(|memory| gst::CapsFeatures::new([memory]));
    caps.make_mut().set_features_simple(features);
    caps
}

/// Passes frames on under another label: an element that changes nothing but the memory that
/// caps speak of.
mod relabel {
    use super::*;

    #[derive(Default)]
    pub(crate) struct Relabel {
        pads: std::sync::OnceLock<(gst::Pad, gst::Pad)>,
        /// Labels of what comes and what goes; `None` is system memory.
        pub(super) from: std::sync::OnceLock<Option<&'static str>>,
        pub(super) to: std::sync::OnceLock<Option<&'static str>>,
        /// Goes out as system memory where that is what is asked for.
        pub(super) either: AtomicBool,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for Relabel {
        const NAME: &'static str = "FramebusTestRelabel";
        type Type = super::Relabel;
        type ParentType = gst::Element;
    }

    impl ObjectImpl for Relabel {
        fn constructed(&self) {
            self.parent_constructed();
            let sink = gst::Pad::builder(gst::PadDirection::Sink)
                .name("sink")
                .chain_function(|_, parent, buffer| with(parent).1.push(buffer))
                .event_function(|_, parent, event| imp(parent).event(event))
                .query_function(|pad, parent, query| imp(parent).query(pad, query))
                .build();
            let src = gst::Pad::builder(gst::PadDirection::Src)
                .name("src")
                .query_function(|pad, parent, query| imp(parent).query(pad, query))
                .build();
            self.obj().add_pad(&sink).expect("a new pad");
            self.obj().add_pad(&src).expect("a new pad");
            self.pads.set((sink, src)).expect("constructed once");
        }
    }
    impl GstObjectImpl for Relabel {}
    impl ElementImpl for Relabel {}

    fn imp(parent: Option<&impl IsA<gst::Object>>) -> &Relabel {
        parent.and_then(|p| p.as_ref().downcast_ref::<super::Relabel>()).expect("its own").imp()
    }

    fn with(parent: Option<&impl IsA<gst::Object>>) -> &(gst::Pad, gst::Pad) {
        imp(parent).pads.get().expect("constructed")
    }

    impl Relabel {
        fn outgoing(&self) -> Option<&'static str> {
            let to = *self.to.get().expect("set up");
            let src = &self.pads.get().expect("constructed").1;
            let asked = src.peer_query_caps(None);
            let has = |memory: &str| {
                asked.iter_with_features().any(|(_, f)| !f.is_any() && f.contains(memory))
            };
            match to {
                // As GStreamer's own: device memory, unless only the other is asked for.
                Some(memory) if self.either.load(Relaxed) && !asked.is_any() && !has(memory) => {
                    None
                }
                to => to,
            }
        }

        fn event(&self, event: gst::Event) -> bool {
            let src = &self.pads.get().expect("constructed").1;
            if let gst::EventView::Caps(caps) = event.view() {
                let caps = labelled(&caps.caps_owned(), self.outgoing());
                return src.push_event(gst::event::Caps::new(&caps));
            }
            src.push_event(event)
        }

        fn query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
            let (sink, src) = self.pads.get().expect("constructed");
            let from = *self.from.get().expect("set up");
            let to = *self.to.get().expect("set up");
            let (other, label) = if pad == sink { (src, from) } else { (sink, to) };
            match query.view_mut() {
                gst::QueryViewMut::Caps(query) => {
                    let mut caps = labelled(&other.peer_query_caps(None), label);
                    if pad == src && self.either.load(Relaxed) {
                        caps.merge(labelled(&caps, None));
                    }
                    if let Some(filter) = query.filter_owned() {
                        caps = caps.intersect(&filter);
                    }
                    query.set_result(&caps);
                    true
                }
                gst::QueryViewMut::AcceptCaps(query) => {
                    query.set_result(true);
                    true
                }
                // A pool belongs to one kind of memory.
                gst::QueryViewMut::Allocation(_) if self.outgoing().is_some() => false,
                _ => other.peer_query(query),
            }
        }
    }
}

glib::wrapper! {
    pub(crate) struct Relabel(ObjectSubclass<relabel::Relabel>) @extends gst::Element, gst::Object;
}

impl Relabel {
    fn between(from: Option<&'static str>, to: Option<&'static str>, either: bool) -> gst::Element {
        let relabel: Self = glib::Object::new();
        relabel.imp().from.set(from).expect("new");
        relabel.imp().to.set(to).expect("new");
        relabel.imp().either.store(either, Relaxed);
        relabel.upcast()
    }
}

fn element(text: &str) -> gst::Element {
    match text.split_once('=') {
        Some((name, caps)) => gst::ElementFactory::make(name)
            .property("caps", caps.parse::<gst::Caps>().expect("caps"))
            .build()
            .expect("an element"),
        None => gst::ElementFactory::make(text).build().expect("an element"),
    }
}

/// A bin under a hardware element's name: module, type, class, caps of both pads, content.
macro_rules! double {
    ($module:ident, $type:ident, $class:literal, $sink:expr, $src:expr, $chain:expr) => {
        mod $module {
            use super::*;

            #[derive(Default)]
            pub(crate) struct Imp;

            #[glib::object_subclass]
            impl ObjectSubclass for Imp {
                const NAME: &'static str = concat!("FramebusTest", stringify!($type));
                type Type = super::$type;
                type ParentType = gst::Bin;
            }

            impl ObjectImpl for Imp {
                fn constructed(&self) {
                    self.parent_constructed();
                    let chain: Vec<gst::Element> = $chain;
                    self.obj().add_many(&chain).expect("added");
                    gst::Element::link_many(&chain).expect("linked");
                    let ends = [("sink", chain.first()), ("src", chain.last())];
                    for (name, element) in ends {
                        let target = element.and_then(|e| e.static_pad(name)).expect("a pad");
                        let template = self.obj().pad_template(name).expect("a template");
                        let pad =
                            gst::GhostPad::builder_from_template_with_target(&template, &target)
                                .expect("it fits")
                                .build();
                        self.obj().add_pad(&pad).expect("a new pad");
                    }
                }
            }
            impl GstObjectImpl for Imp {}
            impl BinImpl for Imp {}

            impl ElementImpl for Imp {
                fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
                    static METADATA: LazyLock<gst::subclass::ElementMetadata> =
                        LazyLock::new(|| {
                            let name = stringify!($type);
                            gst::subclass::ElementMetadata::new(name, $class, "a double", "tests")
                        });
                    Some(&*METADATA)
                }

                fn pad_templates() -> &'static [gst::PadTemplate] {
                    static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
                        let always = gst::PadPresence::Always;
                        let caps = |text: &str| text.parse::<gst::Caps>().expect("caps");
                        [
                            ("sink", gst::PadDirection::Sink, caps($sink)),
                            ("src", gst::PadDirection::Src, caps($src)),
                        ]
                        .map(|(name, direction, caps)| {
                            gst::PadTemplate::new(name, direction, always, &caps).expect("valid")
                        })
                        .to_vec()
                    });
                    TEMPLATES.as_ref()
                }

                fn change_state(
                    &self,
                    transition: gst::StateChange,
                ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
                    let opens = transition == gst::StateChange::NullToReady;
                    let elsewhere = stringify!($type) == "NvH264Dec" && JETSON.load(Relaxed);
                    if opens && (elsewhere || $class.contains("Decoder") && BROKEN.load(Relaxed)) {
                        return Err(gst::StateChangeError);
                    }
                    self.parent_change_state(transition)
                }
            }
        }

        glib::wrapper! {
            pub(crate) struct $type(ObjectSubclass<$module::Imp>)
                @extends gst::Bin, gst::Element, gst::Object;
        }
    };
}

double!(
    nvh264dec,
    NvH264Dec,
    "Codec/Decoder/Video/Hardware",
    "video/x-h264,stream-format=byte-stream,alignment=au",
    "video/x-raw,format=NV12;video/x-raw(memory:CUDAMemory),format=NV12",
    vec![
        element("avdec_h264"),
        element("videoconvert"),
        element("capsfilter=video/x-raw,format=NV12"),
        Relabel::between(None, Some(CUDA), true),
    ]
);
double!(
    cudaconvertscale,
    CudaConvertScale,
    "Filter/Converter/Video/Scaler/Colorspace/Effect/Hardware",
    "video/x-raw(memory:CUDAMemory)",
    "video/x-raw(memory:CUDAMemory)",
    vec![
        Relabel::between(Some(CUDA), None, false),
        element("videoconvertscale"),
        Relabel::between(None, Some(CUDA), false),
    ]
);
double!(
    cudadownload,
    CudaDownload,
    "Filter/Video",
    "video/x-raw(memory:CUDAMemory)",
    "video/x-raw",
    vec![Relabel::between(Some(CUDA), None, false)]
);
double!(
    nvv4l2decoder,
    NvV4l2Decoder,
    "Codec/Decoder/Video",
    "video/x-h264,stream-format=byte-stream,alignment=au",
    "video/x-raw(memory:NVMM),format=NV12",
    vec![
        element("avdec_h264"),
        element("videoconvert"),
        element("capsfilter=video/x-raw,format=NV12"),
        Relabel::between(None, Some(NVMM), false),
    ]
);
double!(
    nvvidconv,
    NvVidConv,
    "Filter/Converter/Video/Scaler",
    "video/x-raw(memory:NVMM)",
    "video/x-raw",
    vec![
        Relabel::between(Some(NVMM), None, false),
        element("videoconvertscale"),
        element("identity"),
    ]
);
