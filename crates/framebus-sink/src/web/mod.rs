//! A page to look at: the cameras live with what was found in them, how they are, what
//! happened, and an editor for zones.
//!
//! Three kinds of threads: the sink's own takes results, events and health records and hands
//! them to the [`hub`]; one serves HTTP and the viewers' sockets; one for each camera that
//! is looked at makes pictures ([`film`]). While nobody looks there is no such thread,
//! nothing is encoded and no frame is read.

mod check;
mod door;
mod film;
mod hub;
mod news;
pub(crate) mod picture;
mod shelf;
mod site;
mod socket;

use crate::feed::{Feed, Message};
use crate::http::{self, Bounds, Server};
use film::Studio;
use framebus_client::Frames;
use framebus_config::{CameraName, Config, Line, Sink, SinkKind, Web, Zone};
use framebus_service::{Failure, Kind, Service, Vitals, clock};
use framebus_types::{Counter, State};
use hub::Hub;
use hyper_util::service::TowerToHyperService;
use news::News;
use site::Site;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// A browser opens six connections a page; viewers' sockets are counted by the hub.
const BOUNDS: Bounds = Bounds { connections: 64, keep_alive: true, longest: None };
/// Reports of the processes are read this often, ns.
const HEALTH_NS: u64 = 200_000_000;
/// The page is told how all are this often, ns.
const STATE_NS: u64 = 1_000_000_000;

/// Runs until asked to stop.
pub(crate) fn serve(
    service: &Service,
    sink: &Sink,
    web: &Web,
    vitals: &Vitals,
) -> Result<(), Failure> {
    let listener = http::bind(web.listen, sink.name.as_str())?;
    let config = service.config();
    let names = cameras(config, sink);
    let hub = Arc::new(Hub::new(names.iter().cloned()));
    let (bus, reader) = (service.bus().clone(), sink.name.to_string());
    let open = move |camera: &str| bus.join_frames(camera, &reader).map(Frames::new);
    let studio = Filming(Studio::new(hub.clone(), web, Arc::new(open)), hub.clone());
    let shelf = shelf::Shelf::new(config, names);
    let site = Arc::new(Site {
        door: door::Door::new(web),
        hello: news::hello(config, web, &hub),
        hub: hub.clone(),
        shelf,
        file: config.file.clone(),
    });
    let health = service.bus().health_subscriber()?;
    let mut feed = Feed::open(service, sink, vitals, (true, true))?;
    let answering = TowerToHyperService::new(site::router(site.clone()));
    let _server = Server::start(listener, BOUNDS, answering)?;
    tracing::info!(
        sink = sink.name.as_str(),
        "page at http://{}/ (token: the one in the configuration)",
        web.listen
    );
    vitals.set_detail(&format!("page at http://{}/", web.listen));
    vitals.set_state(State::Live, "");
    service.ready();
    let (mut news, mut records) = (News::default(), Vec::new());
    let (mut looked_ns, mut told_ns, mut sent) = (0, 0, (0, 0));
    loop {
        let goes_on = feed.turn(|message| match message {
            Message::Result(result) => {
                let camera = hub.number(result.camera()).filter(|&camera| hub.is_watched(camera));
                if let Some(camera) = camera {
                    hub.text(camera, &news::result(camera, result));
                }
            }
            Message::Event(event) => hub.event(news::event(event, &site.shelf)),
        })?;
        if !goes_on {
            return Ok(());
        }
        if let Some(changed) = feed.changed()
            && shown(config) != shown(&changed)
        {
            let said = format!("what the page of sink {} shows changed", sink.name);
            return Err(Failure::message(Kind::Changed, said));
        }
        studio.0.look();
        let now_ns = clock::monotonic_ns();
        if now_ns.saturating_sub(looked_ns) < HEALTH_NS {
            continue;
        }
        looked_ns = now_ns;
        // It wakes nobody here: a report that is a little late is none the worse.
        let _ = health.waker().wait(Duration::ZERO)?;
        let bad = health.receive_into(&mut records)?;
        vitals.add(Counter::BadHeaders, bad as u64);
        records.drain(..).for_each(|record| news.collector.add(&record));
        if now_ns.saturating_sub(told_ns) >= STATE_NS {
            told_ns = now_ns;
            hub.state(news.state(&hub, (now_ns, clock::wall_ns())));
            let now = (hub.counts.sent.load(Relaxed), hub.counts.sent_bytes.load(Relaxed));
            vitals.add(Counter::Written, now.0 - sent.0);
            vitals.add(Counter::WrittenBytes, now.1 - sent.1);
            sent = now;
        }
    }
}

/// Ends the threads that make pictures, and waits for them: each reads the bus.
struct Filming(Arc<Studio>, Arc<Hub>);

impl Drop for Filming {
    fn drop(&mut self) {
        self.0.stop();
        let until_ns = clock::monotonic_ns() + STATE_NS;
        let films = |hub: &Hub| hub.cameras.iter().any(|camera| camera.filmed.load(Relaxed));
        while films(&self.1) && clock::monotonic_ns() < until_ns {
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

/// Names of the cameras that the sink shows.
fn cameras(config: &Config, sink: &Sink) -> Vec<String> {
    let wanted =
        |camera: &CameraName| sink.cameras.is_empty() || sink.cameras.iter().any(|w| w == camera);
    let names = config.enabled_cameras().map(|camera| &camera.name);
    names.filter(|name| wanted(name)).map(ToString::to_string).collect()
}

/// What a page has from the configuration: one that is open says what was.
fn shown(config: &Config) -> (Vec<&CameraName>, &[Zone], &[Line], Vec<&Sink>) {
    let cameras = config.enabled_cameras().map(|camera| &camera.name).collect();
    let keeps = |sink: &&Sink| matches!(sink.kind, SinkKind::Clips(_) | SinkKind::Snapshots(_));
    let shelves = config.enabled_sinks().filter(keeps).collect();
    (cameras, &config.zones, &config.lines, shelves)
}
