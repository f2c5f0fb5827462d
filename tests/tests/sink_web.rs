//! The page: who may see it, what comes over its socket, what it costs while nobody looks,
//! and, where a browser is installed, the page itself.

use framebus_service::clock;
use framebus_tests::{
    Process, World, asset, binary, free_port, openvino, repository, skip, wait_until,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

const TOKEN: &str = "0123456789abcdef-of-a-test";

/// A sink that keeps a picture of each event.
const SNAPSHOTS: &str = r#"
            [[sink]]
            name = "shots"
            kind = "snapshots"
            folder = "shots"
"#;

/// A live instance with a page.
struct Site {
    world: World,
    up: Process,
    port: u16,
    config: PathBuf,
}

impl Site {
    /// `more` goes to the end of the configuration.
    fn start(more: &str) -> Self {
        let mut world = World::new();
        // The token must not lie in the configuration: that is how people have it, too.
        world.environment.push(("PAGE_TOKEN".to_owned(), TOKEN.to_owned()));
        let model = world.tiny_model(2, Some((192, 320)));
        let port = free_port();
        // A red ball that moves, larger than a cell of the detector: found and followed.
        let ball = "gst:videotestsrc is-live=true pattern=ball foreground-color=0xffff0000 ! \
                    video/x-raw,width=320,height=192,framerate=15/1";
        let config = world.config(&format!(
            r#"
            [model]
            path = {model:?}
            [[camera]]
            name = "ball"
            source = "{ball}"
            [[camera]]
            name = "green"
            source = "test:green?width=320&height=192&fps=15"
            [[zone]]
            camera = "ball"
            name = "door"
            points = [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]]
            [[sink]]
            name = "page"
            kind = "web"
            listen = "127.0.0.1:{port}"
            token = "${{PAGE_TOKEN}}"
            width = 160
            {more}
            "#
        ));
        let up = world.up(&config);
        let mut site = Self { world, up, port, config };
        wait_until("the page", 30, || {
            assert!(site.up.is_running(), "it has ended");
            let state = site.try_get("/api/state", &bearer(TOKEN))?;
            let live = |camera: &Value| camera["state"] == "live";
            let cameras = state.json()["cameras"].as_array().cloned()?;
            cameras.iter().all(live).then_some(())
        });
        site
    }

    fn stop(mut self) {
        self.up.signal(Signal::TERM);
        assert_eq!(self.up.wait(30).code, Some(0), "{}", self.up.stderr());
        let said = self.up.stderr() + &self.up.stdout();
        assert!(!said.contains(TOKEN), "the token is in the log");
        assert!(said.contains(&format!("http://127.0.0.1:{}/", self.port)), "{said}");
        self.world.assert_gone();
    }

    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Option<Answer> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        let host = format!("127.0.0.1:{}", self.port);
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
             Content-Length: {length}\r\n{headers}\r\n{body}"
        )
        .ok()?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Answer { status, head: head.to_owned(), body: body.to_owned() })
    }

    fn try_get(&self, path: &str, headers: &str) -> Option<Answer> {
        self.ask("GET", path, headers, "")
    }

    fn get(&self, path: &str, headers: &str) -> Answer {
        self.try_get(path, headers).expect("an answer")
    }

    fn state(&self) -> Value {
        self.get("/api/state", &bearer(TOKEN)).json()
    }

    fn encoded(&self) -> u64 {
        self.state()["video"]["encoded"].as_u64().expect("a number")
    }

    /// Waits for the state after the one that is known: there is one a second.
    fn next_state(&self) -> Value {
        let known = self.state()["at_ms"].clone();
        wait_until("the next state", 10, || {
            let state = self.state();
            (state["at_ms"] != known).then_some(state)
        })
    }

    fn viewer(&self, headers: &[(&'static str, &str)]) -> Result<WebSocket<TcpStream>, u16> {
        let mut request =
            format!("ws://127.0.0.1:{}/ws", self.port).into_client_request().expect("a request");
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header"));
        }
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
                Err(answer.status().as_u16())
            }
            Err(error) => panic!("{error}"),
        }
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// The next message, or none within the socket's time.
fn next(socket: &mut WebSocket<TcpStream>) -> Message {
    loop {
        match socket.read().expect("a message") {
            Message::Ping(_) | Message::Pong(_) => {}
            message => return message,
        }
    }
}

fn say(socket: &mut WebSocket<TcpStream>, value: &Value) {
    socket.send(Message::text(value.to_string())).expect("sent");
}

#[test]
fn the_page_is_for_who_has_the_token_and_shows_nothing_else() {
    if !openvino() {
        return;
    }
    let site = Site::start("");
    for path in ["/", "/app.js", "/ws", "/api/state", "/event/ball/1/x.jpg", "/nothing"] {
        let answer = site.get(path, "");
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(answer.body.contains("<form"), path == "/", "{path}: {}", answer.body);
    }
    assert_eq!(site.get("/style.css", "").status, 200, "for the form");
    assert_eq!(site.get("/?token=wrong", "").status, 401);
    assert_eq!(site.get("/", &bearer("0123456789abcdef-of-a-tesT")).status, 401);
    let in_form = site.ask("POST", "/login", "", "token=wrong").expect("an answer");
    assert_eq!(in_form.status, 401);
    assert!(in_form.body.contains("not the token"), "{}", in_form.body);

    // In the address once, in a cookie from then on.
    let entered = site.get(&format!("/?token={}", TOKEN.replace('-', "%2D")), "");
    assert_eq!((entered.status, entered.header("location")), (303, Some("/")));
    let set = entered.header("set-cookie").expect("a cookie").to_owned();
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Lax"), "{set}");
    assert!(!set.contains(TOKEN), "{set}");
    let in_form = site.ask("POST", "/login", "", &format!("token={TOKEN}")).expect("an answer");
    assert_eq!((in_form.status, in_form.header("set-cookie")), (303, Some(&*set)));
    let cookie = format!("Cookie: {}\r\n", set.split(';').next().expect("a pair"));
    let page = site.get("/", &cookie);
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self'"), "{policy}");
    for (name, value) in [("x-content-type-options", "nosniff"), ("x-frame-options", "DENY")] {
        assert_eq!(page.header(name), Some(value));
    }
    // Nothing from elsewhere, and nothing that the policy would refuse.
    for path in [
        "/",
        "/app.js",
        "/link.js",
        "/tile.js",
        "/chart.js",
        "/events.js",
        "/editor.js",
        "/style.css",
    ] {
        let file = site.get(path, &cookie);
        assert_eq!(file.status, 200, "{path}");
        for foreign in ["https://", "//cdn", " style=\"", "onclick=\"", "innerHTML"] {
            assert!(!file.body.contains(foreign), "{path} has {foreign}");
        }
    }

    // Nothing of the disk but what sinks wrote of events, and nothing from other pages.
    for path in [
        "/event/ball/1/../../../../etc/passwd",
        "/event/ball/1/..%2f..%2f..%2fetc%2fpasswd",
        "/event/..%2f..%2fetc/1/passwd.jpg",
        "/../Cargo.toml",
        "/%2e%2e/Cargo.toml",
        "/event/ball/1/x.jpg",
    ] {
        assert_eq!(site.get(path, &cookie).status, 404, "{path}");
    }
    let other = format!("{cookie}Origin: http://evil.example\r\n");
    let own = format!("{cookie}Origin: http://127.0.0.1:{}\r\n", site.port);
    let check = |headers: &str, text: &str| {
        site.ask("POST", "/api/check", headers, text).expect("an answer")
    };
    let line =
        "[[line]]\ncamera = \"green\"\nname = \"gate\"\nfrom = [0.1, 0.5]\nto = [0.9, 0.5]\n";
    assert_eq!(check(&other, line).status, 403);
    assert_eq!(check(&cookie, line).status, 403, "a browser says where from");
    assert_eq!(check(&own, line).json(), json!({"ok": true}));
    let wrong = check(&own, &line.replace("green", "grren")).json();
    let said = wrong["errors"][0].as_str().expect("an error");
    assert!(said.starts_with("line 2, ") && said.contains("green"), "{said}");
    assert_eq!(check(&own, &"x".repeat(100_000)).status, 413);
    let pair = cookie.trim_start_matches("Cookie: ").trim();
    assert_eq!(site.viewer(&[("cookie", pair)]).err(), Some(403));
    let foreign = [("cookie", pair), ("origin", "http://evil.example")];
    assert_eq!(site.viewer(&foreign).err(), Some(403));
    let origin = format!("http://127.0.0.1:{}", site.port);
    drop(site.viewer(&[("cookie", pair), ("origin", &origin)]).expect("the page's own"));

    // Who guesses is not heard for a while; who is in stays in.
    let refused = std::thread::scope(|scope| {
        let guess = || site.get("/api/state", &bearer("guess")).status;
        let guesses: Vec<_> = (0..12).map(|_| scope.spawn(guess)).collect();
        guesses.into_iter().map(|guess| guess.join().expect("an answer")).max()
    });
    assert_eq!(refused, Some(429));
    assert_eq!(site.get("/api/state", &cookie).status, 200);
    site.stop();
}

#[test]
fn pictures_and_results_come_to_who_looks_and_nothing_is_made_for_nobody() {
    if !openvino() {
        return;
    }
    let site = Site::start(SNAPSHOTS);
    site.next_state();
    assert_eq!(site.encoded(), 0, "nobody has looked");
    let authorization = format!("Bearer {TOKEN}");
    let mut socket = site.viewer(&[("authorization", &authorization)]).expect("a socket");
    let Message::Text(hello) = next(&mut socket) else { panic!("first the hello") };
    let hello: Value = serde_json::from_str(&hello).expect("JSON");
    assert_eq!(hello["cameras"][0]["name"], "ball");
    assert_eq!(hello["cameras"][0]["zones"][0]["name"], "door");
    assert_eq!(hello["cameras"][1]["name"], "green");
    say(&mut socket, &json!({"watch": ["ball"]}));
    // (epoch, sequence) of pictures, and the boxes of results.
    let (mut pictures, mut results, mut matched, mut shown_ms) =
        (Vec::new(), Vec::new(), 0, Vec::new());
    while pictures.len() < 12 || matched < 5 {
        match next(&mut socket) {
            Message::Binary(bytes) => {
                let number =
                    |from: usize| u64::from_le_bytes(bytes[from..from + 8].try_into().expect("8"));
                assert_eq!(
                    bytes[..12],
                    [1, 0, 0, 0, 64, 1, 0, 0, 192, 0, 0, 0],
                    "version, camera, size"
                );
                let picture =
                    image::load_from_memory_with_format(&bytes[40..], image::ImageFormat::Jpeg)
                        .expect("a JPEG");
                assert_eq!((picture.width(), picture.height()), (160, 96));
                pictures.push((number(12).to_string(), number(20)));
                shown_ms.push((clock::wall_ns() - number(28)) as f64 / 1e6);
                say(&mut socket, &json!({"drawn": 0}));
            }
            Message::Text(text) => {
                let said: Value = serde_json::from_str(&text).expect("JSON");
                if said["type"] == "result" {
                    assert_eq!((&said["camera"], &said["width"]), (&json!(0), &json!(320)));
                    let epoch = said["epoch"].as_str().expect("text").to_owned();
                    let sequence = said["sequence"].as_u64().expect("a number");
                    let found = said["detections"].as_array().map_or(0, Vec::len);
                    results.push(((epoch, sequence), found));
                }
            }
            other => panic!("{other:?}"),
        }
        matched =
            results.iter().filter(|(name, found)| *found > 0 && pictures.contains(name)).count();
        assert!(pictures.len() < 200, "no boxes: {results:?}");
    }
    assert!(pictures.windows(2).all(|pair| pair[0].1 < pair[1].1), "{pictures:?}");
    shown_ms.sort_by(f64::total_cmp);
    assert!(shown_ms[0] > 0.0, "shown before it was captured: {shown_ms:?}");

    // What happened, with its picture.
    let until_ns = clock::monotonic_ns() + 20_000_000_000;
    let snapshot = loop {
        assert!(clock::monotonic_ns() < until_ns, "nothing happened");
        match next(&mut socket) {
            Message::Binary(_) => say(&mut socket, &json!({"drawn": 0})),
            Message::Text(text) => {
                let said: Value = serde_json::from_str(&text).expect("JSON");
                if said["type"] == "event" {
                    assert_eq!(said["event"]["camera"], "ball");
                    assert_eq!(said["clip"], Value::Null, "there is no such sink");
                    break said["snapshot"].as_str().expect("a path").to_owned();
                }
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(site.get(&snapshot, "").status, 401);
    wait_until("the snapshot", 10, || {
        let picture = site.get(&snapshot, &bearer(TOKEN));
        (picture.status == 200 && picture.header("content-type") == Some("image/jpeg"))
            .then_some(())
    });

    // A viewer that draws nothing gets two pictures and no more.
    let mut more = 0;
    let until_ns = clock::monotonic_ns() + 700_000_000;
    while clock::monotonic_ns() < until_ns {
        more += usize::from(matches!(next(&mut socket), Message::Binary(_)));
    }
    assert!(more <= 2, "{more} pictures that nobody asked for");

    say(&mut socket, &json!({"watch": []}));
    wait_until("the end of filming", 10, || (site.state()["video"]["filmed"] == 0).then_some(()));
    let before = site.encoded();
    site.next_state();
    site.next_state();
    assert_eq!(site.encoded(), before, "encoded for nobody");

    // What a camera does not do is said, with the reason.
    let capture = site.world.pid_of(&["framebus-capture", "green"]).expect("it runs");
    assert!(site.world.signal(capture, Signal::STOP));
    wait_until("a camera that is not live", 15, || {
        let state = site.state();
        let green = state["cameras"][1].clone();
        let reason = green["reason"].as_str()?;
        (green["state"] != "live" && !reason.is_empty()).then_some(())
    });
    assert!(site.world.signal(capture, Signal::CONT));

    // A sink that dies takes nobody along, and comes back.
    let sink = site.world.pid_of(&["framebus-sink"]).expect("it runs");
    site.world.kill(sink);
    wait_until("the page after its death", 20, || {
        site.try_get("/api/state", &bearer(TOKEN)).filter(|answer| answer.status == 200)
    });
    site.stop();
}

/// The interpreter with Playwright, and Chromium; `None` after saying SKIPPED.
fn browser() -> Option<(PathBuf, PathBuf)> {
    let python = asset("browser/bin/python")?;
    let chromium = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
    match chromium.iter().map(PathBuf::from).find(|path| path.exists()) {
        Some(chromium) => Some((python, chromium)),
        None => {
            skip("there is no Chromium; `scripts/setup.sh --browser` installs it");
            None
        }
    }
}

#[test]
fn a_browser_shows_the_page() {
    let (true, Some((python, chromium))) = (openvino(), browser()) else { return };
    let site = Site::start(SNAPSHOTS);
    let capture = site.world.pid_of(&["framebus-capture", "green"]).expect("it runs");
    let sink = site.world.pid_of(&["framebus-sink"]).expect("it runs");
    let toml = site.world.path("zones.toml");
    let mut command = Command::new(python);
    command
        .arg(repository().join("tests/web/page.py"))
        .args(["--url", &format!("http://127.0.0.1:{}/", site.port), "--token", TOKEN])
        .arg("--chromium")
        .arg(chromium)
        .args(["--stall", &capture.to_string(), "--sink", &sink.to_string()])
        .arg("--toml")
        .arg(&toml)
        .env("HOME", site.world.folder())
        .env("TMPDIR", site.world.folder())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let exit = Process::start("browser", site.world.folder(), command).wait(120);
    assert_eq!(exit.code, Some(0), "{}\n{}", exit.stdout, exit.stderr);

    // What the editor wrote, at the end of the configuration.
    let before = std::fs::read_to_string(&site.config).expect("readable");
    let drawn = std::fs::read_to_string(&toml).expect("written");
    assert!(drawn.contains("[[zone]]") && drawn.contains("[[line]]"), "{drawn}");
    let edited = site.world.write("edited.toml", format!("{before}\n{drawn}"));
    let check = site
        .world
        .command(&binary("framebus"), &["check", "--config"])
        .arg(&edited)
        .output()
        .expect("runs");
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    site.stop();
}
