//! Freezes the layouts: `layout.golden` is what readers in other languages and
//! older processes rely on. A difference here means a new version, not a new
//! golden file, unless bytes that were reserved got a name.

use framebus_types::{
    Detection, Event, FrameHeader, Health, Histogram, PacketHeader, ResultHeader, ServerTimes,
    StageTimes,
};
use std::fmt::Write;
use std::mem::offset_of;

macro_rules! layout {
    ($out:ident, $name:ident: $($field:ident)+) => {
        writeln!($out, "{} size {} align {}", stringify!($name), size_of::<$name>(), align_of::<$name>()).unwrap();
        $(writeln!($out, "  {:4} {}", offset_of!($name, $field), stringify!($field)).unwrap();)+
        // The pattern fails to compile when a field is missing above.
        let $name { $($field: _),+ } = $name::default();
    };
}

#[test]
fn layouts_are_frozen() {
    let mut out = String::new();
    layout!(out, FrameHeader: version flags camera epoch_ns sequence capture_ns wall_ns pts_ns
        publish_ns width height fourcc matrix range chroma_site strides offsets motion
        segment reserved);
    layout!(out, StageTimes: capture_ns publish_ns taken_ns batched_ns preprocessed_ns
        inference_start_ns inference_end_ns decoded_ns result_ns);
    layout!(out, ServerTimes: request serialise_us receive_us queue_us compute_input_us compute_us
        compute_output_us sent_bytes received_bytes);
    layout!(out, ResultHeader: version outcome reason count truncated extra camera epoch_ns sequence
        result_sequence result_epoch_ns wall_ns pts_ns times width height batch_size flags model backend message
        context gap server reserved);
    layout!(out, Detection: bbox score class track zones angle extra_offset extra_len reserved label);
    layout!(out, Event: version kind class direction camera place label event_sequence event_epoch_ns
        epoch_ns sequence capture_ns wall_ns track age_ns bbox score index width height reserved);
    layout!(out, PacketHeader: version codec camera epoch_ns sequence capture_ns wall_ns pts_ns dts_ns
        duration_ns flags width height config_len total_len part_offset reserved);
    layout!(out, Histogram: counts sum_ns max_ns);
    layout!(out, Health: version role name pid state reason started_wall_ns state_since_ns
        updated_ns width height detail counters stages progress_ns reserved);
    assert_eq!(out, include_str!("layout.golden"), "layouts changed; new layout:\n{out}");
}
