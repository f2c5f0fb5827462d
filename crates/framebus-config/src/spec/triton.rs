//! Keys of `[triton]`.

use super::{Default, Key, Kind, MS, key};
use crate::model::TritonTransport;

pub(super) static TRITON: [Key; 11] = [
    key("url", Kind::Endpoint, Default::Word("127.0.0.1:8001"))
        .doc(
            "Where the server listens for gRPC: \"HOST:PORT\", or with TLS \
             \"grpcs://HOST:PORT\"; an IPv6 address in brackets, port 8001 when left out. \
             ${NAME} is replaced.",
            "A server on this machine can share its memory. 8001 is Triton's port for gRPC; \
             HTTP, at 8000, is not used.",
        )
        .also(&["address", "host", "server", "endpoint", "uri", "port", "grpc_url"]),
    key(
        "model",
        Kind::Text,
        Default::Absent("model = \"yolov8n\"", "the name of model.path without its extension"),
    )
    .doc(
        "Name of the model in the server's repository. ${NAME} is replaced.",
        "The server must have the same network that model.path describes; shapes and types \
             are compared at the start.",
    )
    .also(&["name", "model_name"]),
    key(
        "version",
        Kind::Version,
        Default::Absent("version = \"1\"", "the server chooses, by its version policy"),
    )
    .doc(
        "Version of the model in the server's repository, a number in quotes.",
        "Set it where several are loaded and results must come from one of them.",
    )
    .also(&["model_version"]),
    key("transport", Kind::Word(TritonTransport::NAMES), Default::Word("auto"))
        .doc(
            "How tensors reach the server. \"grpc\": in the messages. \"system-shared-memory\": \
             in /dev/shm, which the server must see too. \"cuda-shared-memory\": in the memory \
             of a GPU that both use.",
            "\"auto\" is shared memory when the server runs on this machine and accepts it, else \
             gRPC with one warning that names the reason.",
        )
        .also(&["shared_memory", "shm", "memory", "protocol"]),
    key("timeout_ms", Kind::Int { min: 50, max: 600_000, unit: MS }, Default::Int(1000))
        .doc(
            "A request that is not answered within this, or within four times what \
             answers usually take, fails; where model.backend lists another backend, that one \
             takes over.",
            "Must be well below model.timeout_ms, or inference starts again before another \
             backend can take over.",
        )
        .also(&["timeout", "timeout_s", "deadline_ms", "request_timeout_ms"]),
    key("max_batch", Kind::Int { min: 0, max: 64, unit: "frames" }, Default::Int(0))
        .doc(
            "Most frames of one request. 0 means what the server's model configuration says: its \
             max_batch_size, or 1 where its own dynamic batcher is on, which then gets several \
             single requests at once.",
            "The server knows what its model takes. Lower it where large requests are slow.",
        )
        .also(&["batch", "batch_size", "max_batch_size"]),
    key("token", Kind::Secret, Default::Absent("token = \"${TRITON_TOKEN}\"", "no token is sent"))
        .doc(
            "Sent with each request as `authorization: Bearer TOKEN`. ${NAME} is replaced.",
            "For a proxy before the server, which checks it. To another machine it needs \
             grpcs://. Never shown in logs, process lists or the status.",
        )
        .also(&["bearer", "authorization", "auth", "api_key", "password", "secret"]),
    key("token_header", Kind::Text, Default::Word("authorization"))
        .doc(
            "Header that holds the token, in lower case; any but \"authorization\" holds it bare.",
            "Triton's own check, --grpc-restricted-protocol=…:KEY=TOKEN, wants \
             \"triton-grpc-protocol-KEY\".",
        )
        .also(&["header", "auth_header", "token_name"]),
    key(
        "ca",
        Kind::Path,
        Default::Absent("ca = \"ca.pem\"", "the authorities that the system trusts"),
    )
    .doc(
        "PEM file of the authority that signed the server's certificate; for grpcs://.",
        "Servers on a company's own network often have certificates of its own authority.",
    )
    .also(&["ca_file", "ca_cert", "cacert", "root_ca", "root_certificates", "authority"]),
    key("cert", Kind::Path, Default::Absent("cert = \"client.pem\"", "no client certificate"))
        .doc(
            "PEM file of the certificate by which the server knows this client; for grpcs://, \
             together with key.",
            "Triton asks for one when it is started with --grpc-use-ssl-mutual.",
        )
        .also(&["certificate", "client_cert", "cert_file", "client_certificate"]),
    key("key", Kind::Path, Default::Absent("key = \"client.key\"", "no client certificate"))
        .doc(
            "PEM file of the private key of cert.",
            "Only the user that runs framebus should be able to read it.",
        )
        .also(&["private_key", "client_key", "key_file"]),
];
