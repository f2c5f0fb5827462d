//! Inference by a Triton server, near by or far away, over the KServe v2 protocol.
//!
//! Boxes of a frame come the same way as from every backend; only the network itself runs
//! elsewhere. Tensors travel in one of two ways: in *regions* of shared memory, which the
//! letterbox writes and the decoder reads in place and the server maps, or in the gRPC
//! messages. Requests wait in their worker's thread; several contexts are several requests
//! in flight.
//!
//! Who goes away: the server may end, hang or answer errors at any time. A request that is
//! not answered in time is given up together with its memory, which the server may still
//! write to. [`Link`](link::Link) knows whether the server is there, and tells it of our
//! memory again when it was started anew. Regions of a process of ours that was killed are
//! removed by the next one ([`Link::sweep`](link::Link::sweep)).

mod client;
mod context;
mod contract;
#[cfg(test)]
mod contract_tests;
mod cure;
mod link;
mod outputs;
mod proto;
mod region;
mod slot;

pub use cure::is_local;

use crate::api::{
    Backend, Context, Engine, EngineError, EngineInfo, LoadOptions, Mode, Precision, Shape,
};
use crate::hand_out::HandOut;
use client::{Client, Fault, Io};
use context::{Common, TritonContext};
use contract::Contract;
use framebus_config::{Endpoint, Triton as Settings, TritonTransport as Transport};
use framebus_model::Model;
use link::Link;
use proto::ModelRequest;
use std::sync::Arc;
use std::time::Duration;

/// Name in the configuration and in results.
pub const NAME: &str = "triton";

/// Bound on each of the questions before the first frame; a far server may be slow.
const ASK: Duration = Duration::from_secs(5);
/// Requests in flight where the server gathers them into batches itself.
const GATHERED: usize = 4;

/// Which model of which server.
#[derive(Debug, Clone)]
pub struct Server {
    /// `[triton]` of the configuration.
    pub settings: Settings,
    /// Model name in the server's repository.
    pub model: String,
}

/// The backend.
#[derive(Debug, Clone, Copy, Default)]
pub struct Triton;

impl Backend for Triton {
    fn name(&self) -> &'static str {
        NAME
    }

    fn probe(&self, options: &LoadOptions) -> Result<String, EngineError> {
        let Asked { client, address, model, settings } = Asked::new(options)?;
        client.is_ready(&model, ASK).map_err(|fault| unavailable(&address, &fault))?;
        let server = client.server(ASK).map_err(|fault| unavailable(&address, &fault))?;
        // A server can call a model ready that does not answer.
        let metadata =
            client.metadata(&model, ASK).map_err(|fault| unavailable(&address, &fault))?;
        if let [input] = &metadata.inputs[..] {
            client
                .try_one(&model, input, ASK.max(Duration::from_millis(settings.timeout_ms)))
                .map_err(|fault| unavailable(&address, &fault))?;
        }
        Ok(format!(
            "{} {} at {address}, model '{}' is ready",
            server.name, server.version, model.name
        ))
    }

    fn load(&self, model: &Model, options: &LoadOptions) -> Result<Box<dyn Engine>, EngineError> {
        let asked = Asked::new(options)?;
        TritonEngine::load(model, options, asked).map(|engine| Box::new(engine) as _)
    }
}

/// A server that can be asked.
struct Asked {
    settings: Settings,
    client: Client,
    address: Endpoint,
    model: ModelRequest,
}

impl Asked {
    fn new(options: &LoadOptions) -> Result<Self, EngineError> {
        let unavailable = |reason| EngineError::Unavailable { backend: NAME, reason };
        let server = options.triton.as_ref().ok_or_else(|| {
            unavailable("no server is configured; set url under [triton]".to_owned())
        })?;
        let io = Io::start()
            .map_err(|error| unavailable(format!("no thread for its connection: {error}")))?;
        Ok(Self {
            settings: server.settings.clone(),
            client: Client::new(&server.settings, &Arc::new(io)).map_err(unavailable)?,
            address: server.settings.url.clone(),
            model: ModelRequest {
                name: server.model.clone(),
                version: server.settings.version.clone().unwrap_or_default(),
            },
        })
    }
}

fn unavailable(address: &Endpoint, fault: &Fault) -> EngineError {
    let text = fault.to_string();
    let next = if text.contains("refused") {
        "; start the server, or correct triton.url (its gRPC port is 8001 by default)"
    } else if text.contains("corrupt message") {
        "; it seems not to speak TLS: write grpc:// instead of grpcs:// in triton.url"
    } else if text.contains("certificate") || text.contains("handshake") || text.contains("TLS") {
        "; see ca, cert and key under [triton]"
    } else {
        ""
    };
    EngineError::Unavailable { backend: NAME, reason: format!("{address}: {text}{next}") }
}

/// A model of a server.
struct TritonEngine {
    info: EngineInfo,
    common: Common,
    /// Kept for connections of contexts to come.
    settings: Settings,
    io: Arc<Io>,
    hand_out: HandOut,
}

impl TritonEngine {
    fn load(model: &Model, options: &LoadOptions, asked: Asked) -> Result<Self, EngineError> {
        let Asked { client, address, model: request, settings } = asked;
        if settings.transport == Transport::CudaSharedMemory {
            return Err(EngineError::Unsupported {
                backend: NAME,
                model: request.name,
                reason: "transport \"cuda-shared-memory\" needs the CUDA backend, which is not \
                         part of this version; use \"auto\" or \"system-shared-memory\""
                    .to_owned(),
            });
        }
        let gone = |fault: Fault| unavailable(&address, &fault);
        client.is_ready(&request, ASK).map_err(gone)?;
        let server = client.server(ASK).map_err(gone)?;
        let metadata = client.metadata(&request, ASK).map_err(gone)?;
        let config = client.config(&request, ASK).map_err(gone)?;
        let contract = Contract::new(model, &metadata, &config, settings.max_batch)?;
        let (shapes, base) = contract.sides.policy(contract.own, options.input)?;
        let io = client.io().clone();
        let link = Arc::new(Link::new(client, request, address.clone(), options.clock));
        let shared = transport(&settings, &link, contract.request_bytes(base, 1))?;
        if shared {
            link.sweep();
        }
        Link::watch(&link, shared);
        let contexts = match (options.contexts, options.mode) {
            (0, Mode::Latency) => 1,
            (0, Mode::Throughput) if contract.gathers => GATHERED,
            (0, Mode::Throughput) => 2,
            (contexts, _) => contexts,
        };
        let info = EngineInfo {
            backend: NAME,
            device: format!("{address}, {}", if shared { "shared memory" } else { "gRPC" }),
            version: server.version,
            model: metadata.name,
            precision: Precision::Auto,
            head: contract.reading.head(),
            shapes,
            base,
            mode: options.mode,
            contexts,
            max_batch: contract.max_batch,
            labels: model.labels().to_vec(),
            returns: true,
        };
        let common = Common {
            link,
            contract: Arc::new(contract),
            shared,
            timeout: Duration::from_millis(settings.timeout_ms),
            clock: options.clock,
        };
        let hand_out = HandOut::new(base, Vec::new());
        let mut engine = Self { info, common, settings, io, hand_out };
        engine.hand_out = HandOut::new(base, engine.make_contexts(base)?);
        Ok(engine)
    }

    fn make_contexts(&self, shape: Shape) -> Result<Vec<Box<dyn Context>>, EngineError> {
        let make = |_| {
            // A connection each: messages of megabytes do not wait for each other.
            let client = Client::new(&self.settings, &self.io)
                .map_err(|reason| EngineError::Unavailable { backend: NAME, reason })?;
            let mut context = TritonContext::new(self.common.clone(), client, shape);
            context.self_check()?;
            Ok(Box::new(context) as Box<dyn Context>)
        };
        (0..self.info.contexts).map(make).collect()
    }
}

impl Engine for TritonEngine {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn contexts(&mut self, shape: Shape) -> Result<Vec<Box<dyn Context>>, EngineError> {
        if let Some(ready) = self.hand_out.ready(shape) {
            return Ok(ready);
        }
        self.common.contract.sides.accepts(self.info.shapes, shape)?;
        let contexts = self.make_contexts(shape)?;
        self.hand_out.made(shape);
        Ok(contexts)
    }
}

/// Whether tensors go through shared memory.
fn transport(settings: &Settings, link: &Link, bytes: usize) -> Result<bool, EngineError> {
    let host = &settings.url.host;
    let tried = match settings.transport {
        Transport::Grpc => return Ok(false),
        _ if !is_local(host) => Err(format!(
            "{host} is another machine, which cannot share memory; use transport = \"grpc\" or \
             \"auto\""
        )),
        _ => share(link, bytes),
    };
    match (tried, settings.transport) {
        (Ok(()), _) => Ok(true),
        (Err(reason), Transport::SystemSharedMemory) => {
            Err(EngineError::Unavailable { backend: NAME, reason })
        }
        (Err(_), _) if !is_local(host) => {
            tracing::info!(server = %settings.url, "tensors go over gRPC: another machine");
            Ok(false)
        }
        (Err(reason), _) => {
            tracing::warn!(
                server = %settings.url,
                reason,
                "tensors go over gRPC, which is slower: the server does not share memory"
            );
            Ok(false)
        }
    }
}

/// Whether the server maps a region of ours, of the size of a request.
fn share(link: &Link, bytes: usize) -> Result<(), String> {
    let mut region = link.region(bytes).map_err(|error| error.to_string())?;
    region.set_known(true);
    match link.client.register(region.name(), region.len(), link::SHORT) {
        Ok(()) => {
            link.forget(region);
            Ok(())
        }
        Err(Fault::Refused(_, message)) => {
            region.set_known(false);
            Err(cure::refused(&message, link.address.port))
        }
        Err(fault) => Err(fault.to_string()),
    }
}
