//! The ways to run the network, loaded.

use super::super::bare::ModelArgs;
use super::Args;
use super::beside::Other;
use framebus_config::{Triton as Settings, TritonTransport};
use framebus_engine::triton::Server;
use framebus_engine::{
    BatchOutput, Context, Engine, EngineError, EngineInfo, FrameRequest, Head, InputShape,
    LoadOptions, Mode, Shape, Thresholds, load_first,
};
use framebus_model::Model;
use framebus_service::{Failure, Kind, clock};
use framebus_vision::{Detection, FrameView};

/// Name of the way without a server.
pub(super) const IN_PROCESS: &str = "in-process";
/// A busy machine is measured too, not given up.
const TIMEOUT_MS: u64 = 30_000;
/// Name of this client.
pub(super) const OWN: &str = "framebus";

/// What all ways ran.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ran {
    pub(super) input: Shape,
    pub(super) head: Head,
}

/// A client, and how its tensors travel.
pub(super) struct Way {
    pub(super) client: String,
    pub(super) transport: String,
    /// What calls the network, or why nothing can.
    pub(super) runner: Result<Runner, String>,
}

/// What calls the network.
pub(super) enum Runner {
    Own(Box<Own>),
    Other(Other),
}

/// An engine of this process.
pub(super) struct Own {
    pub(super) info: EngineInfo,
    context: Box<dyn Context>,
    /// Behind the context, which is its own.
    _engine: Box<dyn Engine>,
    output: BatchOutput,
}

/// One call.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Call {
    /// From the frame to its boxes; unknown of other clients.
    pub(super) frame_ms: Option<f64>,
    pub(super) network_ms: f64,
    /// Bytes of the messages; 0 where there are none.
    pub(super) sent: u32,
    pub(super) received: u32,
}

impl Way {
    pub(super) fn in_process(&self) -> bool {
        self.transport == IN_PROCESS
    }

    /// `framebus, grpc`.
    pub(super) fn title(&self) -> String {
        format!("{}, {}", self.client, self.transport)
    }

    /// Calls the network once on `frame`. `None` where it cannot be called at all.
    pub(super) fn call(&mut self, frame: &FrameView<'_>) -> Result<Option<Call>, Failure> {
        let title = self.title();
        let called = match &mut self.runner {
            Err(_) => return Ok(None),
            Ok(Runner::Own(own)) => own.call(frame).map_err(|error| error.to_string()),
            Ok(Runner::Other(other)) => other.call(),
        };
        let failed = |error| Failure::message(Kind::Unavailable, format_args!("{title}: {error}"));
        called.map(Some).map_err(failed)
    }

    /// The boxes of the last call.
    pub(super) fn boxes(&self) -> Option<&[Detection]> {
        match self.runner.as_ref().ok()? {
            Runner::Own(own) => Some(&own.output.frames.first()?.detections),
            Runner::Other(_) => None,
        }
    }
}

impl Own {
    fn new(mut engine: Box<dyn Engine>, input: Shape) -> Result<Self, EngineError> {
        let info = engine.info().clone();
        let context = engine.contexts(input)?.into_iter().next();
        let context = context.ok_or_else(|| EngineError::Unavailable {
            backend: info.backend,
            reason: "it has no execution context".to_owned(),
        })?;
        Ok(Self { info, context, _engine: engine, output: BatchOutput::default() })
    }

    fn call(&mut self, frame: &FrameView<'_>) -> Result<Call, EngineError> {
        let thresholds =
            Thresholds { confidence: 0.25, iou: 0.7, max_detections: 300, classes: None };
        let request = FrameRequest { view: *frame, thresholds: &thresholds, memory: None };
        let begin_ns = clock::monotonic_ns();
        self.context.run(&[request], &mut self.output)?;
        let end_ns = clock::monotonic_ns();
        let ms = |from_ns: u64, to_ns: u64| to_ns.saturating_sub(from_ns) as f64 / 1e6;
        let times = &self.output.times;
        Ok(Call {
            frame_ms: Some(ms(begin_ns, end_ns)),
            network_ms: ms(times.inference_start_ns, times.inference_end_ns),
            sent: times.server.sent_bytes,
            received: times.server.received_bytes,
        })
    }
}

/// Loads this client's three ways. The server decides what runs; in process does the same.
pub(super) fn load(
    args: &Args,
    model: &Model,
    network: &ModelArgs,
) -> Result<(Vec<Way>, Ran), Failure> {
    let mut ran = None;
    let (mut ways, mut last) = (Vec::new(), None);
    for transport in [TritonTransport::SystemSharedMemory, TritonTransport::Grpc] {
        let settings = Settings {
            url: args.url.clone(),
            transport,
            timeout_ms: TIMEOUT_MS,
            ..Settings::default()
        };
        let name = args.triton_model.clone().unwrap_or_else(|| model.name().to_owned());
        let options = LoadOptions {
            triton: Some(Server { settings, model: name }),
            ..network.options(Mode::Latency, false)
        };
        let loaded = load_first(&["triton".to_owned()], model, &options).and_then(|(engine, _)| {
            let info = engine.info();
            let input = info.shapes.shape_for(args.size.0, args.size.1);
            let found = Ran { input, head: info.head };
            let own = Own::new(engine, input)?;
            ran.get_or_insert(found);
            Ok(own)
        });
        ways.push(way(transport.as_str(), loaded.map_err(|error| last.insert(error).to_string())));
    }
    let Some(ran) = ran else { return Err(no_server(last)) };
    let options = LoadOptions {
        input: InputShape::Fixed(ran.input),
        ..network.options(Mode::Latency, ran.head != Head::Cut)
    };
    let loaded =
        load_first(&[], model, &options).and_then(|(engine, _)| Own::new(engine, ran.input));
    let loaded = loaded.map_err(|error| error.to_string()).and_then(|own| {
        let same = own.info.head == ran.head || ran.head == Head::Suppressed;
        same.then_some(own).ok_or_else(|| {
            "the server's model has its head cut off, which cannot be done in process".to_owned()
        })
    });
    ways.insert(0, way(IN_PROCESS, loaded));
    Ok((ways, ran))
}

fn way(transport: &str, loaded: Result<Own, String>) -> Way {
    Way {
        client: OWN.to_owned(),
        transport: transport.to_owned(),
        runner: loaded.map(|own| Runner::Own(Box::new(own))),
    }
}

/// Neither transport works: there is nothing to compare with.
fn no_server(error: Option<EngineError>) -> Failure {
    let reason = error.as_ref().map_or_else(String::new, EngineError::to_string);
    match error {
        Some(EngineError::Unsupported { .. }) => Failure::message(Kind::Config, reason),
        _ => Failure::message(
            Kind::Unavailable,
            format_args!(
                "{reason}; --url and --triton-model name server and model, `make triton-bench` \
                 brings a server of its own"
            ),
        ),
    }
}
