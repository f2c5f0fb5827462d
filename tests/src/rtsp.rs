//! A network camera whose faults are made to order, and the line to it.

use crate::{World, example};
use rustix::net::sockopt::set_socket_linger;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

/// Longest wait for a word of the camera.
const WORD: Duration = Duration::from_secs(20);
/// Time between two looks of the line.
const LOOK: Duration = Duration::from_millis(20);

/// The example `rtsp_server`, which obeys its standard input; killed when dropped.
#[derive(Debug)]
pub struct RtspCamera {
    child: Child,
    input: ChildStdin,
    said: mpsc::Receiver<String>,
    /// TCP port on the loopback interface.
    pub port: u16,
}

impl RtspCamera {
    /// Starts a camera with 320x192 at 20 fps on a free port; `more` are arguments of the
    /// example.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(world: &World, more: &[&str]) -> Self {
        let usual = ["--port", "0", "--size", "320x192", "--fps", "20", "test"];
        let mut command: Command = world.command(&example("rtsp_server"), &[&usual, more].concat());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the example starts");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (word, said) = mpsc::channel();
        std::thread::spawn(move || {
            let lines = output.lines().map_while(Result::ok);
            lines.take_while(|line| word.send(line.clone()).is_ok()).for_each(drop);
        });
        let mut camera = Self { child, input, said, port: 0 };
        let line = camera.said.recv_timeout(WORD).expect("the camera says where it listens");
        let port = line.rsplit_once(':').and_then(|(_, rest)| rest.split('/').next()?.parse().ok());
        camera.port = port.unwrap_or_else(|| panic!("no port in {line:?}"));
        camera
    }

    /// Makes a fault, or ends it; the example's documentation says which there are.
    ///
    /// # Panics
    /// When the camera does not obey.
    pub fn order(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the camera listens");
        let answer = self.said.recv_timeout(WORD).expect("the camera answers");
        assert_eq!(answer, format!("done {line}"));
    }
}

impl Drop for RtspCamera {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the line does with connections and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Carries everything to the camera at this port, and back.
    To(u16),
    /// Takes connections and bytes and carries nothing; nobody is told.
    Hole,
    /// Answers each request with this RTSP status, as a camera does that starts.
    Answer(&'static str),
    /// Nobody listens.
    Closed,
}

/// A TCP road to a camera whose port stays the same whatever becomes of it.
#[derive(Debug)]
pub struct Road {
    /// TCP port on the loopback interface.
    pub port: u16,
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    line: Mutex<Line>,
    /// Both ends of each connection.
    streams: Mutex<Vec<TcpStream>>,
    /// How often all connections were ended.
    cuts: AtomicU64,
    stop: AtomicBool,
}

impl Road {
    /// Opens a road on a free port.
    ///
    /// # Panics
    /// When no port can be had.
    #[must_use]
    pub fn open(line: Line) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let shared = Arc::new(Shared {
            line: Mutex::new(line),
            streams: Mutex::default(),
            cuts: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let worker = shared.clone();
        let thread = std::thread::spawn(move || worker.run(port, listener));
        Self { port, shared, thread: Some(thread) }
    }

    /// Changes the line for the connections that there are and for new ones. What a
    /// [`Line::Hole`] has taken is lost: connections that went through it never work again.
    pub fn set(&self, line: Line) {
        *self.shared.line.lock().unwrap_or_else(PoisonError::into_inner) = line;
        pause(3 * LOOK);
    }

    /// Ends all connections: in order (FIN), or at once (RST).
    pub fn cut(&self, reset: bool) {
        for stream in self.shared.streams().drain(..) {
            // A close without lingering resets; it comes when the last holder of the stream
            // lets go.
            let _ = match reset {
                true => set_socket_linger(&stream, Some(Duration::ZERO)).map_err(drop),
                false => stream.shutdown(Shutdown::Both).map_err(drop),
            };
        }
        self.shared.cuts.fetch_add(1, Relaxed);
        pause(3 * LOOK);
    }
}

impl Drop for Road {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        self.cut(false);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn line(&self) -> Line {
        *self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn streams(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(self: Arc<Self>, port: u16, listener: TcpListener) {
        let mut listener = Some(listener);
        while !self.stop.load(Relaxed) {
            if self.line() == Line::Closed {
                listener = None;
            } else if listener.is_none() {
                listener = TcpListener::bind(("127.0.0.1", port)).ok();
            }
            let Some(open) = &listener else {
                pause(LOOK);
                continue;
            };
            let _ = open.set_nonblocking(true);
            match open.accept() {
                Ok((near, _)) => self.serve(near),
                Err(_) => pause(LOOK),
            }
        }
    }

    fn serve(self: &Arc<Self>, near: TcpStream) {
        let _ = near.set_nonblocking(false);
        let far = match self.line() {
            Line::To(port) => TcpStream::connect(("127.0.0.1", port)).ok(),
            _ => None,
        };
        let ends: Vec<TcpStream> = [Some(&near), far.as_ref()]
            .into_iter()
            .flatten()
            .filter_map(|stream| stream.try_clone().ok())
            .collect();
        self.streams().extend(ends);
        match (far, self.line()) {
            (Some(far), _) => {
                let Ok((near2, far2)) = near.try_clone().and_then(|n| Ok((n, far.try_clone()?)))
                else {
                    return;
                };
                let (up, down) = (self.clone(), self.clone());
                std::thread::spawn(move || up.carry(near, far));
                std::thread::spawn(move || down.carry(far2, near2));
            }
            (None, Line::Answer(status)) => {
                std::thread::spawn(move || answer(near, status));
            }
            (None, Line::Hole) => {}
            // The camera is not there: the connection ends at once.
            (None, _) => drop(near.shutdown(Shutdown::Both)),
        }
    }

    /// Carries bytes until one end closes; into nowhere once the line is a hole.
    fn carry(&self, mut from: TcpStream, mut to: TcpStream) {
        let _ = from.set_read_timeout(Some(LOOK));
        let (mut bytes, mut lost) = ([0; 16 * 1024], false);
        let cuts = self.cuts.load(Relaxed);
        while !self.stop.load(Relaxed) && self.cuts.load(Relaxed) == cuts {
            let count = match from.read(&mut bytes) {
                Ok(0) if lost => break,
                Ok(0) => {
                    let _ = to.shutdown(Shutdown::Write);
                    break;
                }
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(_) => break,
            };
            lost |= self.line() == Line::Hole;
            if !lost && to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
    }
}

/// Answers requests one after the other, each with the number that it came with.
fn answer(stream: TcpStream, status: &str) {
    let Ok(mut to) = stream.try_clone() else { return };
    let mut number = String::new();
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        if let Some(given) = line.strip_prefix("CSeq:") {
            given.trim().clone_into(&mut number);
        }
        let whole = line.is_empty();
        if whole && write!(to, "RTSP/1.0 {status}\r\nCSeq: {number}\r\n\r\n").is_err() {
            return;
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "tests have no signals to answer")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
