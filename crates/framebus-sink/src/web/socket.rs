//! One viewer's WebSocket.
//!
//! From here: texts (JSON, by their `type`: hello, state, result, event) and pictures
//! (binary, see `film::header`). From the page: `{"watch": ["front", …]}` says what is
//! looked at, `{"drawn": 3}` that a picture of camera 3 has been drawn.

use super::hub::{Hub, Outgoing, Viewer};
use axum::extract::ws::{Message, WebSocket};
use framebus_service::clock;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// A message from a page at most: names of 64 cameras.
pub(crate) const MESSAGE_BYTES: usize = 16 * 1024;
/// A page that takes nothing for so long is gone.
const SEND: Duration = Duration::from_secs(10);
/// How often a page is asked whether it is there; its browser answers.
const PING: Duration = Duration::from_secs(10);
/// Nothing heard for so long: gone.
const SILENT: Duration = Duration::from_secs(30);

/// A place in the hub, given back whatever happens.
#[derive(Debug)]
pub(crate) struct Seat {
    hub: Arc<Hub>,
    viewer: Arc<Viewer>,
}

impl Seat {
    pub(crate) fn new(hub: Arc<Hub>, viewer: Arc<Viewer>) -> Self {
        Self { hub, viewer }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.hub.leave(&self.viewer);
    }
}

pub(crate) async fn serve(socket: WebSocket, seat: Seat) {
    let (sender, receiver) = socket.split();
    // Whichever ends first ends the other.
    tokio::select! {
        () = send(sender, &seat) => {}
        () = receive(receiver, &seat) => {}
    }
}

async fn send(mut sender: SplitSink<WebSocket, Message>, seat: &Seat) {
    let counts = &seat.hub.counts;
    let mut ping = tokio::time::interval(PING);
    loop {
        let (message, capture_ns) = match seat.viewer.next() {
            Some(Outgoing::Text(text)) => (Message::Text(text), None),
            Some(Outgoing::Picture(picture, at_ns)) => (Message::Binary(picture), Some(at_ns)),
            None => tokio::select! {
                () = seat.viewer.wake.notified() => continue,
                _ = ping.tick() => (Message::Ping(bytes::Bytes::new()), None),
            },
        };
        let bytes = match &message {
            Message::Text(text) => text.len(),
            Message::Binary(picture) => picture.len(),
            _ => 0,
        };
        match tokio::time::timeout(SEND, sender.send(message)).await {
            Ok(Ok(())) => {}
            _ => return,
        }
        if bytes > 0 {
            counts.sent.fetch_add(1, Relaxed);
            counts.sent_bytes.fetch_add(bytes as u64, Relaxed);
        }
        if let Some(capture_ns) = capture_ns {
            let age_ns = clock::monotonic_ns().saturating_sub(capture_ns);
            counts.age_ns.fetch_add(age_ns, Relaxed);
            counts.aged.fetch_add(1, Relaxed);
        }
    }
}

async fn receive(mut receiver: SplitStream<WebSocket>, seat: &Seat) {
    loop {
        let message = match tokio::time::timeout(SILENT, receiver.next()).await {
            Ok(Some(Ok(message))) => message,
            _ => return,
        };
        let Message::Text(text) = message else { continue };
        let Ok(said) = serde_json::from_str::<Value>(&text) else { return };
        if let Some(number) = said["drawn"].as_u64() {
            seat.viewer.drawn(usize::try_from(number).unwrap_or(usize::MAX));
        }
        if let Some(names) = said["watch"].as_array() {
            seat.hub.watch(&seat.viewer, |camera| names.iter().any(|name| name == camera));
        }
    }
}
