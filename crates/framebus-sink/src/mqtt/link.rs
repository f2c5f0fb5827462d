//! One connection to a broker, in either version of the protocol.
//!
//! The client library keeps nothing here: each connection is a new session, and what is
//! to be sent again comes out of the spool.

use crate::tls;
use framebus_config::{Mqtt, MqttProtocol};
use std::time::Duration;

/// Longest packet in either direction, in bytes.
const MESSAGE_MAX: usize = 8 << 20;
/// Requests that the library takes beside those on their way.
pub(super) const SPARE: usize = 16;
/// Longest time to connect in.
const CONNECT: Duration = Duration::from_secs(5);

/// What to publish when the connection ends without a word.
#[derive(Debug)]
pub(super) struct Will<'a> {
    pub(super) topic: &'a str,
    pub(super) payload: &'a str,
}

/// What comes from a connection.
#[derive(Debug)]
pub(super) enum Happened {
    /// The broker takes messages, of so many bytes where it sets a bound.
    Connected(Option<usize>),
    /// The oldest message without a number has this one.
    Sent(u16),
    /// A message has arrived, or is refused for good: why.
    Acknowledged(u16, Option<String>),
    /// A message cannot be taken now: why.
    Busy(String),
    /// A message that the broker has kept: topic and payload.
    Kept(String, Vec<u8>),
    /// Nothing of interest.
    Other,
}

/// The end of a connection.
#[derive(Debug)]
pub(super) struct Ended {
    /// Why, in words.
    pub(super) reason: String,
    /// The broker may have ended it because of a message.
    pub(super) is_suspicious: bool,
}

impl From<&str> for Ended {
    fn from(reason: &str) -> Self {
        Self { reason: reason.to_owned(), is_suspicious: false }
    }
}

/// What becomes of a message that is handed over.
#[derive(Debug)]
pub(super) enum Given {
    /// It is on its way.
    Sent,
    /// The broker does not take it: why.
    Refused(String),
    /// There is no room for it.
    Full,
}

/// The sending half.
pub(super) enum Client {
    V4(mqtt4::Client),
    /// With the longest packet that the broker takes, bytes.
    V5(mqtt5::Client, Option<usize>),
}

/// The half that must be polled.
#[allow(clippy::large_enum_variant, reason = "there is one")]
pub(super) enum Connection {
    V4(Box<mqtt4::Connection>),
    V5(Box<mqtt5::Connection>),
}

/// What both versions have under the same names.
macro_rules! options {
    ($library:ident, $mqtt:expr, $id:expr) => {{
        let mqtt: &Mqtt = $mqtt;
        let tls = mqtt.url.scheme() == "mqtts";
        let port = mqtt.url.port().unwrap_or(if tls { 8883 } else { 1883 });
        let mut options = $library::MqttOptions::new($id, (mqtt.url.host(), port));
        options.set_keep_alive(mqtt.keep_alive_s);
        if tls {
            let identity = mqtt.cert.as_deref().zip(mqtt.key.as_deref());
            let config = tls::client(mqtt.ca.as_deref(), identity)?;
            let config = $library::TlsConfiguration::Rustls(config);
            options.set_transport($library::Transport::tls_with_config(config));
        }
        match (&mqtt.user, &mqtt.password) {
            (Some(user), Some(password)) => {
                options.set_credentials(user.as_str(), password.expose().to_owned());
            }
            (Some(user), None) => {
                options.set_username(user.as_str());
            }
            (None, _) => {}
        }
        options
    }};
}

/// Both halves of a connection that is made with the first [`Connection::next`].
///
/// # Errors
/// What is wrong with the files for TLS.
pub(super) fn open(mqtt: &Mqtt, id: &str, will: &Will<'_>) -> Result<(Client, Connection), String> {
    let capacity = usize::from(mqtt.in_flight) + SPARE;
    match mqtt.protocol {
        MqttProtocol::V311 => {
            let mut options = options!(mqtt4, mqtt, id);
            options.set_clean_session(true);
            options.set_inflight(mqtt.in_flight);
            options.set_max_packet_size(MESSAGE_MAX, MESSAGE_MAX);
            let (topic, payload) = (will.topic, will.payload);
            let will = mqtt4::LastWill::new(topic, payload, mqtt4::QoS::AtLeastOnce, true);
            options.set_last_will(will);
            let builder = mqtt4::Client::builder(options).capacity(capacity);
            let (client, mut connection) = builder.try_build().map_err(|e| e.to_string())?;
            let mut network = mqtt4::NetworkOptions::new();
            network.set_tcp_nodelay(true);
            network.set_connection_timeout(CONNECT.as_secs());
            connection.eventloop.set_network_options(network);
            Ok((Client::V4(client), Connection::V4(Box::new(connection))))
        }
        MqttProtocol::V5 => {
            let mut options = options!(mqtt5, mqtt, id);
            options.set_clean_start(true);
            options.set_outgoing_inflight_upper_limit(mqtt.in_flight);
            options.set_connect_timeout(CONNECT);
            options.set_max_packet_size(Some(MESSAGE_MAX as u32));
            let (topic, payload) = (will.topic, will.payload);
            let will = mqtt5::LastWill::new(topic, payload, mqtt5::QoS::AtLeastOnce, true, None);
            options.set_last_will(will);
            let mut network = mqtt5::NetworkOptions::new();
            network.set_tcp_nodelay(true);
            options.set_network_options(network);
            let builder = mqtt5::Client::builder(options).capacity(capacity);
            let (client, connection) = builder.try_build().map_err(|e| e.to_string())?;
            Ok((Client::V5(client, None), Connection::V5(Box::new(connection))))
        }
    }
}

impl Client {
    /// Takes note of the longest packet that the broker takes.
    pub(super) fn set_longest(&mut self, bytes: Option<usize>) {
        if let Self::V5(_, longest) = self {
            *longest = bytes;
        }
    }

    /// Hands a message to the connection; `id` goes along as the user property `id` where
    /// the protocol has those.
    pub(super) fn publish(&self, topic: &str, id: &str, payload: &[u8], retain: bool) -> Given {
        let is_taken = match self {
            Self::V4(client) => {
                let options = mqtt4::PublishOptions::at_least_once().retain(retain);
                client.try_publish(topic, payload.to_vec(), options).is_ok()
            }
            Self::V5(client, longest) => {
                let bytes = packet_bytes(topic.len(), id.len(), payload.len());
                if let Some(longest) = longest.filter(|longest| bytes > *longest) {
                    return Given::Refused(format!("{bytes} bytes, it takes {longest}"));
                }
                let options = mqtt5::PublishOptions::at_least_once()
                    .retain(retain)
                    .properties(properties(id));
                client.try_publish(topic, payload.to_vec(), options).is_ok()
            }
        };
        if is_taken { Given::Sent } else { Given::Full }
    }

    /// Asks for what the broker keeps at these topics; what it says to that is not heard.
    pub(super) fn ask(&self, filter: &str) {
        let _ = match self {
            Self::V4(client) => client.try_subscribe(filter, mqtt4::QoS::AtMostOnce).is_ok(),
            Self::V5(client, _) => client.try_subscribe(filter, mqtt5::QoS::AtMostOnce).is_ok(),
        };
    }

    /// Says good-bye after what is on its way: the broker publishes no will then.
    pub(super) fn disconnect(&self) {
        // One that is gone needs no good-bye.
        let _ = match self {
            Self::V4(client) => client.try_disconnect().is_ok(),
            Self::V5(client, _) => client.try_disconnect().is_ok(),
        };
    }

    /// Ends the connection at once.
    pub(super) fn disconnect_now(&self) {
        let _ = match self {
            Self::V4(client) => client.try_disconnect_now().is_ok(),
            Self::V5(client, _) => client.try_disconnect_now().is_ok(),
        };
    }
}

fn properties(id: &str) -> mqtt5::PublishProperties {
    let user_properties = match id {
        "" => Vec::new(),
        id => vec![("id".to_owned(), id.to_owned())],
    };
    mqtt5::PublishProperties {
        payload_format_indicator: Some(1),
        user_properties,
        ..Default::default()
    }
}

/// Bytes of a PUBLISH packet with [`properties`] by MQTT 5.0, section 3.3.
fn packet_bytes(topic: usize, id: usize, payload: usize) -> usize {
    // A variable byte integer (section 1.5.5) holds 7 bits a byte.
    let with_length = |bytes: usize| bytes + (bytes.max(1).ilog2() / 7 + 1) as usize;
    let user_property = if id == 0 { 0 } else { 1 + (2 + "id".len()) + (2 + id) };
    let properties = 2 + user_property;
    1 + with_length((2 + topic) + 2 + with_length(properties) + payload)
}

impl Connection {
    /// Waits for what happens next.
    ///
    /// # Errors
    /// Why the connection has ended, in words.
    pub(super) fn next(&mut self) -> Result<Happened, Ended> {
        match self {
            Self::V4(connection) => match connection.recv() {
                Ok(Ok(event)) => Ok(happened4(&event)),
                Ok(Err(error)) => Err(why4(&error)),
                Err(_) => Err("closed".into()),
            },
            Self::V5(connection) => match connection.recv() {
                Ok(Ok(event)) => Ok(happened5(&event)),
                Ok(Err(error)) => Err(why5(&error)),
                Err(_) => Err("closed".into()),
            },
        }
    }
}

fn happened4(event: &mqtt4::Event) -> Happened {
    match event {
        mqtt4::Event::Incoming(mqtt4::Packet::ConnAck(_)) => Happened::Connected(None),
        mqtt4::Event::Incoming(mqtt4::Packet::Publish(message)) => {
            kept(message.retain, &message.topic, &message.payload)
        }
        mqtt4::Event::Incoming(mqtt4::Packet::PubAck(ack)) => {
            Happened::Acknowledged(ack.pkid, None)
        }
        mqtt4::Event::Outgoing(mqtt4::Outgoing::Publish(number)) => Happened::Sent(*number),
        _ => Happened::Other,
    }
}

fn happened5(event: &mqtt5::Event) -> Happened {
    match event {
        mqtt5::Event::Incoming(mqtt5::Packet::ConnAck(answer)) => {
            let longest = answer.properties.as_ref().and_then(|all| all.max_packet_size);
            Happened::Connected(longest.map(|bytes| bytes as usize))
        }
        mqtt5::Event::Incoming(mqtt5::Packet::Publish(message)) => {
            kept(message.retain, &message.topic, &message.payload)
        }
        mqtt5::Event::Incoming(mqtt5::Packet::PubAck(ack)) => {
            use mqtt5::PubAckReason as Reason;
            let why = || format!("{:?}", ack.reason);
            match ack.reason {
                Reason::Success | Reason::NoMatchingSubscribers => {
                    Happened::Acknowledged(ack.pkid, None)
                }
                Reason::NotAuthorized | Reason::TopicNameInvalid | Reason::PayloadFormatInvalid => {
                    Happened::Acknowledged(ack.pkid, Some(why()))
                }
                _ => Happened::Busy(format!("it takes no messages now ({})", why())),
            }
        }
        mqtt5::Event::Outgoing(mqtt5::Outgoing::Publish(number)) => Happened::Sent(*number),
        _ => Happened::Other,
    }
}

fn kept(retain: bool, topic: &[u8], payload: &[u8]) -> Happened {
    match str::from_utf8(topic) {
        Ok(topic) if retain => Happened::Kept(topic.to_owned(), payload.to_owned()),
        _ => Happened::Other,
    }
}

/// Whether the other side has cut the connection.
macro_rules! is_cut {
    ($library:ident, $error:expr) => {{
        use $library::{ConnectionError, StateError, mqttbytes};
        match $error {
            ConnectionError::MqttState(StateError::ConnectionAborted) => true,
            ConnectionError::Io(error)
            | ConnectionError::MqttState(StateError::Io(error))
            | ConnectionError::MqttState(StateError::Deserialization(mqttbytes::Error::Io(
                error,
            ))) => {
                use std::io::ErrorKind::{
                    BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof,
                };
                matches!(
                    error.kind(),
                    BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
                )
            }
            _ => false,
        }
    }};
}

fn why4(error: &mqtt4::ConnectionError) -> Ended {
    use mqtt4::ConnectReturnCode::{BadClientId, BadUserNamePassword, NotAuthorized};
    match error {
        mqtt4::ConnectionError::ConnectionRefused(code) => match code {
            BadUserNamePassword | NotAuthorized => LOGIN.into(),
            BadClientId => CLIENT_ID.into(),
            other => refused(other),
        },
        mqtt4::ConnectionError::NetworkTimeout => NO_ANSWER.into(),
        other => Ended { reason: tls::reason(other), is_suspicious: is_cut!(mqtt4, other) },
    }
}

fn why5(error: &mqtt5::ConnectionError) -> Ended {
    use mqtt5::ConnectReturnCode::{
        BadClientId, BadUserNamePassword, ClientIdentifierNotValid, NotAuthorized,
    };
    match error {
        mqtt5::ConnectionError::ConnectionRefused(code) => match code {
            BadUserNamePassword | NotAuthorized => LOGIN.into(),
            BadClientId | ClientIdentifierNotValid => CLIENT_ID.into(),
            other => refused(other),
        },
        mqtt5::ConnectionError::Timeout(_) => NO_ANSWER.into(),
        other => {
            let is_suspicious = is_cut!(mqtt5, other) || is_about_a_message(other);
            Ended { reason: tls::reason(other), is_suspicious }
        }
    }
}

/// Whether a broker that says why it ends a connection may mean a message.
fn is_about_a_message(error: &mqtt5::ConnectionError) -> bool {
    use mqtt5::DisconnectReasonCode::{
        ImplementationSpecificError, MalformedPacket, NotAuthorized, PacketTooLarge,
        PayloadFormatInvalid, ProtocolError, QoSNotSupported, RetainNotSupported, TopicNameInvalid,
        UnspecifiedError,
    };
    let mqtt5::ConnectionError::MqttState(error) = error else { return false };
    match error {
        // What this half refuses to send; which message it was, it does not say.
        mqtt5::StateError::OutgoingPacketTooLarge { .. }
        | mqtt5::StateError::RetainNotSupported
        | mqtt5::StateError::Deserialization(mqtt5::Error::OutgoingPacketTooLarge { .. }) => true,
        mqtt5::StateError::ServerDisconnect { reason_code, .. } => matches!(
            reason_code,
            ImplementationSpecificError
                | MalformedPacket
                | NotAuthorized
                | PacketTooLarge
                | PayloadFormatInvalid
                | ProtocolError
                | QoSNotSupported
                | RetainNotSupported
                | TopicNameInvalid
                | UnspecifiedError
        ),
        _ => false,
    }
}

const LOGIN: &str = "user or password refused";
const CLIENT_ID: &str = "client_id refused";
const NO_ANSWER: &str = "no answer";

fn refused(code: &impl std::fmt::Debug) -> Ended {
    format!("refused ({code:?})").as_str().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_packet_is_what_the_library_writes() {
        for (topic, id) in [("fb/status", ""), ("fb/a/event", "a-1-2-3"), ("t", "i")] {
            for bytes in (0..300).chain([16_370, 16_384, 2_097_130, 2_097_152]) {
                let qos = mqtt5::QoS::AtLeastOnce;
                let payload = vec![b' '; bytes];
                let mut packet = mqtt5::Publish::new(topic, qos, payload, Some(properties(id)));
                packet.pkid = 1;
                assert_eq!(packet_bytes(topic.len(), id.len(), bytes), packet.size());
            }
        }
    }
}
