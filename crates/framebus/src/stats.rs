//! Rates, quantiles and totals out of health records: those of the client.

pub(crate) use framebus_client::health::{
    CAPTURE_DROPS, Collector, INFER_DROPS, Track, camera_state, child_name,
};
