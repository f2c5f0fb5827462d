//! `[tracking]`, `[[zone]]`, `[[line]]` and every kind of `[[sink]]`: what a valid
//! configuration becomes. What is refused stands in `broken`.

use framebus_config::*;
use std::path::Path;

const TOKEN: &str = "0123456789abcdef";

fn parsed(body: &str) -> Config {
    let text = format!(
        "[model]\npath = \"m.onnx\"\n[[camera]]\nname = \"a\"\nsource = \"test:ball\"\n\
         [[camera]]\nname = \"b\"\nsource = \"test:ball\"\n{body}"
    );
    let env = |name: &str| (name == "WORD").then(|| TOKEN.to_owned());
    match parse(&text, Path::new("/etc/x.toml"), &env) {
        Ok(config) => config,
        Err(errors) => panic!("{body}: {errors}"),
    }
}

fn sink(kind: &str, keys: &str) -> SinkKind {
    let config = parsed(&format!("[[sink]]\nname = \"s\"\nkind = \"{kind}\"\n{keys}\n"));
    assert!(!format!("{config:?}").contains(TOKEN));
    assert_eq!(config.sinks[0].kind.as_str(), kind);
    config.sinks[0].kind.clone()
}

#[test]
fn every_key_of_tracking_zones_and_lines() {
    let config = parsed(
        r#"
        [tracking]
        enabled = false
        high = 0.25
        new = 0.75
        min_frames = 3
        lost_s = 1.5
        [[zone]]
        camera = "b"
        name = "yard"
        points = [[0, 0], [1, 0], [0.5, 1]]
        classes = ["person", 2]
        dwell_s = 30
        anchor = "center"
        [[zone]]
        camera = "a"
        name = "yard"
        points = [[0, 0], [1, 0], [0.5, 1]]
        [[line]]
        camera = "b"
        name = "door"
        from = [0.25, 0]
        to = [0.5, 1]
        classes = [0]
        anchor = "center"
        "#,
    );
    let tracking = Tracking { enabled: false, high: 0.25, new: 0.75, min_frames: 3, lost_s: 1.5 };
    assert_eq!(config.tracking, tracking);
    let camera = |name: &str| CameraName::try_from(name).expect("a valid name");
    let zone = Zone {
        camera: camera("b"),
        name: "yard".to_owned(),
        points: vec![[0.0, 0.0], [1.0, 0.0], [0.5, 1.0]],
        classes: vec![ClassFilter::Name("person".to_owned()), ClassFilter::Number(2)],
        dwell_s: 30.0,
        anchor: Anchor::Center,
    };
    let plain = Zone {
        camera: camera("a"),
        classes: Vec::new(),
        dwell_s: 0.0,
        anchor: Anchor::Bottom,
        ..zone.clone()
    };
    assert_eq!(config.zones, [zone, plain]);
    assert_eq!(config.zones_of("b").count(), 1);
    let line = Line {
        camera: camera("b"),
        name: "door".to_owned(),
        from: [0.25, 0.0],
        to: [0.5, 1.0],
        classes: vec![ClassFilter::Number(0)],
        anchor: Anchor::Center,
    };
    assert_eq!(config.lines_of("b").collect::<Vec<_>>(), [&line]);
    assert_eq!(config.lines_of("a").count(), 0);
    assert_eq!(parsed("").tracking, Tracking::default());
}

#[test]
fn every_key_of_sinks_that_deliver() {
    let mqtt = sink(
        "mqtt",
        "url = \"mqtts://broker.example:8884\"\nprotocol = \"3.1.1\"\ndeliver = \"both\"\n\
         topic = \"site/1\"\nclient_id = \"me\"\nuser = \"u\"\npassword = \"${WORD}\"\n\
         ca = \"ca.pem\"\ncert = \"c.pem\"\nkey = \"k.pem\"\nkeep_alive_s = 30\nin_flight = 7\n\
         home_assistant = true\ndiscovery_prefix = \"ha\"\nspool = \"/var/spool\"\nspool_mib = 9",
    );
    let SinkKind::Mqtt(mqtt) = mqtt else { panic!("{mqtt:?}") };
    assert_eq!((mqtt.url.scheme(), mqtt.url.port()), ("mqtts", Some(8884)));
    assert!(mqtt.deliver.events() && mqtt.deliver.results());
    let expected = Mqtt {
        url: mqtt.url.clone(),
        protocol: MqttProtocol::V311,
        deliver: Deliver::Both,
        topic: "site/1".to_owned(),
        client_id: Some("me".to_owned()),
        user: Some("u".to_owned()),
        password: Some(Secret::new(TOKEN)),
        ca: Some("/etc/ca.pem".into()),
        cert: Some("/etc/c.pem".into()),
        key: Some("/etc/k.pem".into()),
        keep_alive_s: 30,
        in_flight: 7,
        home_assistant: true,
        discovery_prefix: "ha".to_owned(),
        spool: Spool { folder: Some("/var/spool".into()), max_mib: 9 },
    };
    assert_eq!(mqtt, expected);

    let webhook = sink(
        "webhook",
        "url = \"https://a.example/hook?key=${WORD}\"\ndeliver = \"results\"\n\
         secret = \"${WORD}\"\ntimeout_ms = 500\nca = \"ca.pem\"\nspool_mib = 9",
    );
    let SinkKind::Webhook(webhook) = webhook else { panic!("{webhook:?}") };
    assert!(webhook.url.as_str().ends_with(TOKEN) && !webhook.deliver.events());
    let expected = Webhook {
        url: webhook.url.clone(),
        deliver: Deliver::Results,
        secret: Some(Secret::new(TOKEN)),
        timeout_ms: 500,
        ca: Some("/etc/ca.pem".into()),
        spool: Spool { folder: None, max_mib: 9 },
    };
    assert_eq!(webhook, expected);

    let SinkKind::Otlp(otlp) = sink("otlp", "") else { panic!("no otlp") };
    assert_eq!((otlp.url.as_str(), otlp.sample), ("http://127.0.0.1:4318", 0.01));
    assert_eq!((otlp.token, otlp.ca), (None, None));
    let keys = "url = \"https://a.example/otlp\"\nsample = 1\ntoken = \"${WORD}\"\nca = \"ca.pem\"";
    let SinkKind::Otlp(otlp) = sink("otlp", keys) else { panic!("no otlp") };
    let expected = Otlp {
        url: otlp.url.clone(),
        sample: 1.0,
        token: Some(Secret::new(TOKEN)),
        ca: Some("/etc/ca.pem".into()),
    };
    assert_eq!(otlp, expected);
    assert_eq!(otlp.url.as_str(), "https://a.example/otlp");
    let zenoh = sink(
        "zenoh",
        "url = \"tls://box-b:7447\"\ndeliver = \"results\"\nprefix = \"site/1\"\nca = \"ca.pem\"\n\
         cert = \"c.pem\"\nkey = \"k.pem\"\nframes = true\nwidth = 320\nquality = 50\n\
         spool = \"/var/spool\"\nspool_mib = 9",
    );
    let SinkKind::Zenoh(zenoh) = zenoh else { panic!("{zenoh:?}") };
    assert_eq!(zenoh.url.origin(), "tls://box-b:7447");
    let expected = Zenoh {
        url: zenoh.url.clone(),
        deliver: Deliver::Results,
        prefix: Some("site/1".to_owned()),
        ca: Some("/etc/ca.pem".into()),
        cert: Some("/etc/c.pem".into()),
        key: Some("/etc/k.pem".into()),
        frames: true,
        width: 320,
        quality: 50,
        spool: Spool { folder: Some("/var/spool".into()), max_mib: 9 },
    };
    assert_eq!(zenoh, expected);
}

#[test]
fn every_key_of_sinks_that_serve_and_keep() {
    let token = Secret::new(TOKEN);
    let listen = |text: &str| Listen(text.parse().expect("an address"));
    assert_eq!(
        sink("prometheus", "listen = \"[::1]:80\"\ntoken = \"${WORD}\""),
        SinkKind::Prometheus(Prometheus { listen: listen("[::1]:80"), token: token.clone() })
    );
    let keys = "listen = \"0.0.0.0:81\"\ntoken = \"${WORD}\"\nfps = 5\nwidth = 320\nquality = 50";
    let web = Web { listen: listen("0.0.0.0:81"), token, fps: 5, width: 320, quality: 50 };
    assert_eq!(sink("web", keys), SinkKind::Web(web));
    let clips = Clips {
        folder: "/etc/clips".into(),
        events: vec!["enter", "cross"],
        before_s: 1.0,
        after_s: 2.0,
        longest_s: 3.0,
        keep_mib: 4,
    };
    let keys = "folder = \"clips\"\nevents = [\"cross\", \"enter\"]\nbefore_s = 1\nafter_s = 2\n\
                longest_s = 3\nkeep_mib = 4";
    assert_eq!(sink("clips", keys), SinkKind::Clips(clips));
    let history =
        History { path: "/etc/h.db".into(), deliver: Deliver::Both, keep_days: 7, keep_mib: 8 };
    let keys = "path = \"h.db\"\ndeliver = \"both\"\nkeep_days = 7\nkeep_mib = 8";
    assert_eq!(sink("history", keys), SinkKind::History(history));
    let snapshots = Snapshots {
        folder: "/srv".into(),
        events: Vec::new(),
        style: SnapshotStyle::Crop,
        quality: 90,
        keep_mib: 4,
    };
    let keys = "folder = \"/srv\"\nstyle = \"crop\"\nquality = 90\nkeep_mib = 4";
    assert_eq!(sink("snapshots", keys), SinkKind::Snapshots(snapshots));
}

#[test]
fn files_that_sinks_need_must_be_there() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("m.onnx"), b"x").expect("a writable folder");
    let path = folder.path().join("x.toml");
    let text = "[model]\npath = \"m.onnx\"\n[[camera]]\nname = \"a\"\nsource = \"test:ball\"\n\
                [[sink]]\nname = \"s\"\nkind = \"mqtt\"\nurl = \"mqtts://a\"\nca = \"no.pem\"\n";
    std::fs::write(&path, text).expect("a writable folder");
    let found = check_files(&load(&path).expect("a valid configuration"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].key.as_str(), found[0].position), ("sink[s].ca", Some((10, 6))));
}

/// Whoever may ask whether a text loads (`POST /api/check` of the page) learns of no variable.
#[test]
fn errors_tell_nothing_of_what_variables_hold() {
    for value in ["48151", "4815.1", "a48151:62342", "-48151"] {
        let env = |_: &str| Some(value.to_owned());
        for text in [
            "[[sink]]\nname = \"s\"\nkind = \"web\"\ntoken = \"0123456789abcdef\"\nlisten = \"${V}\"",
            "[[sink]]\nname = \"s\"\nkind = \"web\"\ntoken = \"x${V}\"\nlisten = \"127.0.0.1:1\"",
            "[[sink]]\nname = \"s\"\nkind = \"mqtt\"\nurl = \"${V}\"",
            "[[sink]]\nname = \"s\"\nkind = \"mqtt\"\nurl = \"mqtt://x:${V}\"",
            "[[camera]]\nname = \"c\"\nsource = \"rtsp://x:${V}/y\"",
            "[[camera]]\nname = \"c\"\nsource = \"${V}\"",
            "[[camera]]\nname = \"c\"\nsource = \"test:ball?width=${V}\"",
            "[[camera]]\nname = \"c\"\nsource = \"test:ball\"\nfps = \"${V}\"",
            "[[sink]]\nname = \"s\"\nkind = \"mqtt\"\nurl = \"mqtt://x\"\ntopic = \"${V}/#\"",
            "[triton]\nurl = \"${V}\"",
        ] {
            let Err(errors) = parse(text, Path::new("/etc/x.toml"), &env) else {
                panic!("there is no model: {text}")
            };
            let said = errors.to_string();
            assert!(!said.contains("815") && !said.contains("623"), "{text}: {said}");
        }
    }
}
