//! Cameras on a cable that is pulled.
//!
//! No real device is opened here: there is none, and v4l2loopback cannot be loaded in a
//! container. Shown are a device node that is missing, one that turns up and is no camera,
//! and, in place of a device that is unplugged, a `gst:` source whose other end goes away.
//! Not shown is what the driver answers when a camera in use is unplugged; `explain.rs`
//! turns its read error into a sentence.

use framebus_tests::{Bystander, World, openvino, show_fault, wait_status, wait_until};
use rustix::process::Signal;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

const SIZE: (usize, usize) = (320, 192);

/// A device node below /dev that is none; removed when dropped.
struct Node(PathBuf);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_device_that_is_missing_turns_up_or_goes_away_is_followed() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let model = world.tiny_model(2, Some((96, 160)));
    // The one place below /dev where anybody may make files.
    let device = Node(format!("/dev/shm/video-{}", world.instance()).into());
    let config = world.config(&format!(
        r#"
        [model]
        path = {model:?}
        [[camera]]
        name = "near"
        source = "test:green?width=320&height=192&fps=15"
        [[camera]]
        name = "webcam"
        source = "v4l2:{}"
        reconnect_min_ms = 200
        reconnect_max_ms = 1000
        [[camera]]
        name = "cable"
        source = "gst:tcpclientsrc host=127.0.0.1 port={port} ! rawvideoparse format=i420 width={} height={} framerate=20/1"
        picture_checks = "off"
        stall_s = 2.0
        reconnect_min_ms = 200
        reconnect_max_ms = 1000
        "#,
        device.0.display(),
        SIZE.0,
        SIZE.1
    ));
    let mut up = world.up(&config);
    let near = Bystander::start(&world.domain(), "near");
    show_fault(&world, "V4L2: no such device", "webcam", "offline", "no such device", 8);
    std::os::unix::fs::symlink("/dev/null", &device.0).expect("the folder is writable");
    show_fault(&world, "V4L2: not a camera", "webcam", "offline", "not a camera", 8);

    let cable = Cable::plug(&listener);
    wait_status(&world, "cable", "live", "", 10);
    // Nothing comes any more, and nobody says why.
    let silent = cable.pause();
    show_fault(&world, "device stops delivering", "cable", "stalled", "no frame for 2 s", 8);
    drop(silent);
    // Another attempt finds the other end again.
    let cable = Cable::plug(&listener);
    wait_status(&world, "cable", "live", "", 10);
    drop((cable, listener));

    assert!(near.finish() > 30);
    up.signal(Signal::TERM);
    let exit = up.wait(30);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
    world.assert_gone();
}

/// The other end of the cable: sends pictures at 20 fps until it is dropped.
struct Cable {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<TcpStream>>,
}

impl Cable {
    /// Waits for the source to connect.
    fn plug(listener: &TcpListener) -> Self {
        listener.set_nonblocking(true).expect("a socket");
        let mut stream = wait_until("a connection", 20, || listener.accept().ok()).0;
        stream.set_nonblocking(false).expect("a socket");
        let stop = Arc::new(AtomicBool::new(false));
        let wish = stop.clone();
        let thread = std::thread::spawn(move || {
            let picture = vec![128; SIZE.0 * SIZE.1 * 3 / 2];
            while !wish.load(Relaxed) && stream.write_all(&picture).is_ok() {
                #[allow(clippy::disallowed_methods, reason = "tests have no signals to answer")]
                std::thread::sleep(Duration::from_millis(50));
            }
            stream
        });
        Self { stop, thread: Some(thread) }
    }

    /// Sends no more and keeps the connection.
    fn pause(mut self) -> TcpStream {
        self.stop.store(true, Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).expect("it has been sending")
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
