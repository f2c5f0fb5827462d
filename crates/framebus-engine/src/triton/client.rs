//! Calls to the server: one connection, deadlines, and what an error means.

use super::proto::{
    Empty, InferTensor, ModelConfig, ModelConfigResponse, ModelInferRequest, ModelInferResponse,
    ModelMetadata, ModelRequest, Ready, RegisterRequest, ServerMetadata, StatisticsResponse,
    TensorMetadata, UnregisterRequest,
};
use crate::api::ClockNs;
use framebus_config::Triton as Settings;
use prost::Message;
use std::error::Error as _;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;

use tonic::metadata::{Ascii, MetadataKey, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

/// Longest wait for a connection; a call's own deadline may be shorter.
const CONNECT: Duration = Duration::from_secs(1);
/// Data that may be on its way to us unasked: an answer of raw outputs fits, so that the
/// server never waits for our permission (HTTP/2 grants 64 KiB by default).
const WINDOW: u32 = 1 << 24;
/// Largest frame of HTTP/2: fewer headers in a message of megabytes.
const FRAME: u32 = 1 << 20;
/// Characters of a server's message that are shown.
const MESSAGE_LENGTH: usize = 400;

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// There is no connection, or it broke: the server may or may not have seen the call.
    Lost(String),
    /// Nothing came within the deadline; the server may still work on it.
    Late(Duration),
    /// The server's own refusal.
    Refused(Code, String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lost(reason) => f.write_str(reason),
            Self::Late(limit) => {
                write!(f, "it did not answer within {:.1} s", limit.as_secs_f64())
            }
            Self::Refused(_, message) => write!(f, "the server says: {message}"),
        }
    }
}

impl Fault {
    fn new(status: &Status) -> Self {
        // What happened on this side has a source, what the server says has none.
        let Some(mut source) = status.source() else {
            // These have the code of a server that is away: a wrong or missing token, and a
            // queue that is full or took too long, by the model's queue policy.
            let texts = ["is restricted", "maximum queue size", "timeout expired"];
            let refused = texts.iter().any(|text| status.message().contains(text));
            return match status.code() {
                code if refused => Self::Refused(code, line(status.message())),
                Code::Unavailable | Code::Cancelled => Self::Lost(line(status.message())),
                code => Self::Refused(code, line(status.message())),
            };
        };
        while let Some(deeper) = source.source() {
            source = deeper;
        }
        Self::Lost(line(&source.to_string()))
    }
}

/// One bounded line.
fn line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MESSAGE_LENGTH) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// When a call passed its stages, and its size; written by the codec.
#[derive(Debug)]
pub(crate) struct Marks {
    clock: ClockNs,
    /// Encoding began, CLOCK_MONOTONIC ns.
    pub(crate) encoding_ns: AtomicU64,
    /// It ended.
    pub(crate) encoded_ns: AtomicU64,
    /// The last byte of the answer was here.
    pub(crate) received_ns: AtomicU64,
    /// Bytes of the encoded request.
    pub(crate) sent: AtomicU64,
    /// Bytes of the encoded answer.
    pub(crate) received: AtomicU64,
}

impl Marks {
    pub(crate) fn new(clock: ClockNs) -> Self {
        Self {
            clock,
            encoding_ns: AtomicU64::new(0),
            encoded_ns: AtomicU64::new(0),
            received_ns: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
        }
    }
}

/// What moves the bytes of connections.
#[derive(Debug)]
pub(crate) struct Io(Option<Runtime>);

impl Io {
    /// One thread; whoever asks waits in a thread of its own.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn start() -> std::io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).thread_name("triton-io").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    fn runtime(&self) -> Result<&Runtime, Fault> {
        self.0.as_ref().ok_or_else(|| Fault::Lost("its connection is closed".to_owned()))
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        // Without waiting: looking up a name can hang.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A connection.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    io: Arc<Io>,
    channel: Channel,
    token: Option<(MetadataKey<Ascii>, MetadataValue<Ascii>)>,
}

impl Client {
    /// Prepares a connection; it is made with the first call, and again after it broke.
    pub(crate) fn new(settings: &Settings, io: &Arc<Io>) -> Result<Self, String> {
        let scheme = if settings.url.tls { "https" } else { "http" };
        let address = settings.url.to_string();
        let authority = address.split_once("://").map_or(address.as_str(), |(_, rest)| rest);
        let endpoint = Endpoint::from_shared(format!("{scheme}://{authority}"))
            .map_err(|error| format!("triton.url {address}: {}", chain(&error)))?
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(2 * WINDOW)
            .max_frame_size(FRAME);
        let endpoint = match settings.url.tls {
            true => endpoint.tls_config(tls(settings)?).map_err(|error| {
                format!("the TLS keys of [triton] cannot be used: {}", chain(&error))
            })?,
            false => endpoint,
        };
        let token = settings.token.as_ref().map(|token| {
            let name = settings.token_header.as_str();
            let scheme = if name == "authorization" { "Bearer " } else { "" };
            let key = MetadataKey::from_bytes(name.as_bytes())
                .map_err(|_| "triton.token_header is no header's name".to_owned())?;
            let mut value = MetadataValue::try_from(format!("{scheme}{}", token.expose()))
                .map_err(|_| "triton.token holds characters that no header can".to_owned())?;
            value.set_sensitive(true);
            Ok::<_, String>((key, value))
        });
        let _entered = io.runtime().map_err(|fault| fault.to_string())?.enter();
        Ok(Self { io: io.clone(), channel: endpoint.connect_lazy(), token: token.transpose()? })
    }

    /// What moves its bytes.
    pub(crate) fn io(&self) -> &Arc<Io> {
        &self.io
    }

    /// One call, which waits in this thread.
    fn call<Req, Res>(
        &self,
        method: &'static str,
        request: Arc<Req>,
        limit: Duration,
        marks: Option<&Arc<Marks>>,
    ) -> Result<Res, Fault>
    where
        Req: Message + 'static,
        Res: Message + Default + 'static,
    {
        let mut request = Request::new(request);
        if let Some((key, value)) = &self.token {
            request.metadata_mut().insert(key.clone(), value.clone());
        }
        let codec = Framed { marks: marks.cloned(), kinds: PhantomData::<(Req, Res)> };
        let mut grpc = Grpc::new(self.channel.clone())
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX);
        let call = async move {
            grpc.ready().await.map_err(|error| Fault::Lost(root(&error)))?;
            let answer = grpc.unary(request, PathAndQuery::from_static(method), codec).await;
            answer.map(tonic::Response::into_inner).map_err(|status| Fault::new(&status))
        };
        let bounded = async { tokio::time::timeout(limit, call).await };
        self.io.runtime()?.block_on(bounded).unwrap_or(Err(Fault::Late(limit)))
    }

    /// Whether the server and the model take requests; `Lost` says what does not.
    pub(crate) fn is_ready(&self, model: &ModelRequest, limit: Duration) -> Result<(), Fault> {
        let server: Ready = self.call(
            "/inference.GRPCInferenceService/ServerReady",
            Arc::new(Empty {}),
            limit,
            None,
        )?;
        // A server counts as not ready while any of its models is not; it may serve ours.
        let asked: Result<Ready, Fault> = self.call(
            "/inference.GRPCInferenceService/ModelReady",
            Arc::new(model.clone()),
            limit,
            None,
        );
        match asked {
            Ok(Ready { ready: true }) => Ok(()),
            Ok(_) if !server.ready => Err(Fault::Lost("the server is not ready".to_owned())),
            Ok(_) => Err(Fault::Lost(format!(
                "model '{}'{} is not there or not ready; see the server's model repository and log",
                model.name,
                match model.version.as_str() {
                    "" => String::new(),
                    version => format!(" version {version}"),
                }
            ))),
            Err(fault) => Err(fault),
        }
    }

    pub(crate) fn server(&self, limit: Duration) -> Result<ServerMetadata, Fault> {
        let method = "/inference.GRPCInferenceService/ServerMetadata";
        self.call(method, Arc::new(Empty {}), limit, None)
    }

    pub(crate) fn metadata(
        &self,
        model: &ModelRequest,
        limit: Duration,
    ) -> Result<ModelMetadata, Fault> {
        let method = "/inference.GRPCInferenceService/ModelMetadata";
        self.call(method, Arc::new(model.clone()), limit, None)
    }

    pub(crate) fn config(
        &self,
        model: &ModelRequest,
        limit: Duration,
    ) -> Result<ModelConfig, Fault> {
        let method = "/inference.GRPCInferenceService/ModelConfig";
        let answer: ModelConfigResponse =
            self.call(method, Arc::new(model.clone()), limit, None)?;
        Ok(answer.config.unwrap_or_default())
    }

    pub(crate) fn infer(
        &self,
        request: &Arc<ModelInferRequest>,
        limit: Duration,
        marks: &Arc<Marks>,
    ) -> Result<ModelInferResponse, Fault> {
        let method = "/inference.GRPCInferenceService/ModelInfer";
        self.call(method, request.clone(), limit, Some(marks))
    }

    /// Totals of the model since the server started.
    pub(crate) fn statistics(
        &self,
        model: &ModelRequest,
        limit: Duration,
    ) -> Result<StatisticsResponse, Fault> {
        let method = "/inference.GRPCInferenceService/ModelStatistics";
        self.call(method, Arc::new(model.clone()), limit, None)
    }

    /// Lets the server map the region. Known already is as good.
    pub(crate) fn register(
        &self,
        name: &str,
        byte_size: usize,
        limit: Duration,
    ) -> Result<(), Fault> {
        let request = RegisterRequest {
            name: name.to_owned(),
            key: format!("/{name}"),
            offset: 0,
            byte_size: byte_size as u64,
        };
        let method = "/inference.GRPCInferenceService/SystemSharedMemoryRegister";
        match self.call::<_, Empty>(method, Arc::new(request), limit, None) {
            Err(Fault::Refused(Code::AlreadyExists, _)) => Ok(()),
            answer => answer.map(|_| ()),
        }
    }

    /// Sends one request with black pictures of `shape`, batch and colours first.
    pub(crate) fn try_one(
        &self,
        model: &ModelRequest,
        input: &TensorMetadata,
        limit: Duration,
    ) -> Result<(), Fault> {
        let usual = [1, 3, 384, 640];
        let sides = input.shape.iter().zip(usual);
        let shape: Vec<i64> =
            sides.map(|(&side, usual)| if side > 0 { side } else { usual }).collect();
        let size = match input.datatype.as_str() {
            "FP32" => 4,
            "FP16" => 2,
            _ => 1,
        };
        let values: i64 = shape.iter().copied().fold(1, i64::saturating_mul);
        let request = ModelInferRequest {
            model_name: model.name.clone(),
            model_version: model.version.clone(),
            inputs: vec![InferTensor {
                name: input.name.clone(),
                datatype: input.datatype.clone(),
                shape,
                ..InferTensor::default()
            }],
            // No more than a picture: what the server says is not trusted.
            raw_input_contents: vec![vec![0; values.clamp(0, 1 << 26) as usize * size].into()],
            ..ModelInferRequest::default()
        };
        let method = "/inference.GRPCInferenceService/ModelInfer";
        self.call::<_, ModelInferResponse>(method, Arc::new(request), limit, None).map(|_| ())
    }

    /// The server forgets the region.
    pub(crate) fn unregister(&self, name: &str, limit: Duration) -> Result<(), Fault> {
        let method = "/inference.GRPCInferenceService/SystemSharedMemoryUnregister";
        let request = UnregisterRequest { name: name.to_owned() };
        self.call::<_, Empty>(method, Arc::new(request), limit, None).map(|_| ())
    }
}

fn tls(settings: &Settings) -> Result<ClientTlsConfig, String> {
    let read = |key: &str, path: &Path| {
        std::fs::read(path)
            .map_err(|error| format!("triton.{key}: cannot read {}: {error}", path.display()))
    };
    let mut tls = ClientTlsConfig::new().timeout(CONNECT);
    tls = match &settings.ca {
        Some(path) => tls.ca_certificate(Certificate::from_pem(read("ca", path)?)),
        None => tls.with_native_roots(),
    };
    if let (Some(cert), Some(key)) = (&settings.cert, &settings.key) {
        tls = tls.identity(Identity::from_pem(read("cert", cert)?, read("key", key)?));
    }
    Ok(tls)
}

/// The deepest reason: what is above it says only that something failed.
fn root(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    line(&deepest.to_string())
}

/// All reasons, outermost first.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(deeper) = source {
        text = format!("{text}: {deeper}");
        source = deeper.source();
    }
    line(&text)
}

/// Protobuf with marks. Requests are shared: what encodes them may outlive a call that
/// was given up.
struct Framed<Req, Res> {
    marks: Option<Arc<Marks>>,
    kinds: PhantomData<(Req, Res)>,
}

impl<Req, Res> Codec for Framed<Req, Res>
where
    Req: Message + 'static,
    Res: Message + Default + 'static,
{
    type Encode = Arc<Req>;
    type Decode = Res;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self::Encoder {
        Self { marks: self.marks.clone(), kinds: PhantomData }
    }

    fn decoder(&mut self) -> Self::Decoder {
        Self { marks: self.marks.clone(), kinds: PhantomData }
    }
}

impl<Req, Res> Encoder for Framed<Req, Res>
where
    Req: Message + 'static,
    Res: 'static,
{
    type Item = Arc<Req>;
    type Error = Status;

    fn encode(&mut self, item: Arc<Req>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let begin_ns = self.marks.as_ref().map(|marks| (marks.clock)());
        let length = item.encoded_len();
        // At once: growing step by step would copy a message of megabytes several times.
        buffer.reserve(length);
        item.encode(buffer).map_err(|error| Status::internal(error.to_string()))?;
        if let (Some(marks), Some(begin_ns)) = (&self.marks, begin_ns) {
            marks.encoding_ns.store(begin_ns, Ordering::Relaxed);
            marks.encoded_ns.store((marks.clock)(), Ordering::Relaxed);
            marks.sent.store(length as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl<Req, Res> Decoder for Framed<Req, Res>
where
    Req: 'static,
    Res: Message + Default + 'static,
{
    type Item = Res;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Res>, Status> {
        if let Some(marks) = &self.marks {
            marks.received_ns.store((marks.clock)(), Ordering::Relaxed);
            let length = bytes::Buf::remaining(buffer) as u64;
            marks.received.store(length, Ordering::Relaxed);
        }
        Res::decode(buffer).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
