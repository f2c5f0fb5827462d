//! A real Mosquitto on a port of its own, and its command line subscriber.

use crate::{Process, World, free_port, skip, wait_until};
use rustix::process::Signal;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A broker that keeps its sessions over an orderly restart; killed when dropped.
#[derive(Debug)]
pub struct Mosquitto<'a> {
    world: &'a World,
    ports: Vec<u16>,
    config: PathBuf,
    process: Option<Process>,
    starts: u32,
}

impl<'a> Mosquitto<'a> {
    /// Starts one with a listener for each of `listeners`: lines of mosquitto.conf(5) for
    /// it. `None`, after saying SKIPPED, where it is not installed.
    ///
    /// # Panics
    /// When it does not come up, or it is missing and `FRAMEBUS_REQUIRE_ASSETS=1`.
    #[must_use]
    pub fn start(world: &'a World, listeners: &[String]) -> Option<Self> {
        let found = Command::new(BROKER).arg("-h").output();
        if found.is_err() || Command::new("mosquitto_sub").arg("--help").output().is_err() {
            skip("mosquitto is missing; `scripts/setup.sh --mqtt` installs it");
            return None;
        }
        let ports: Vec<u16> = listeners.iter().map(|_| free_port()).collect();
        let store = world.path("mosquitto");
        std::fs::create_dir_all(&store).expect("writable");
        // Without a bound (0), Mosquitto 2.0.11 ends the connection of who may not publish.
        let mut text = format!(
            "per_listener_settings true\nuser root\npersistence true\n\
             persistence_location {}/\nmax_queued_messages 1000000\nlog_dest stderr\nlog_type all\n",
            store.display()
        );
        for (port, lines) in ports.iter().zip(listeners) {
            text.push_str(&format!("listener {port} 127.0.0.1\n{lines}\n"));
        }
        let config = world.write("mosquitto.conf", text);
        let mut broker = Self { world, ports, config, process: None, starts: 0 };
        broker.restart();
        Some(broker)
    }

    /// Port of a listener.
    #[must_use]
    pub fn port(&self, listener: usize) -> u16 {
        self.ports[listener]
    }

    /// Ends it; its sessions are on disk then.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::TERM);
            process.wait(10);
        }
    }

    /// Starts it again on the same ports.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn restart(&mut self) {
        self.starts += 1;
        let name = format!("mosquitto{}", self.starts);
        let config = self.config.display().to_string();
        self.process = Some(self.world.start(&name, Path::new(BROKER), &["-c", &config]));
        for port in &self.ports {
            wait_until("the broker", 20, || TcpStream::connect(("127.0.0.1", *port)).ok());
        }
    }

    /// Listens to `topic` with a session that outlives restarts of the broker: a line of
    /// topic, a blank, retained or not (1, 0), a blank and the payload for each message.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn subscribe(&self, name: &str, topic: &str, more: &[&str]) -> Process {
        let port = self.port(0).to_string();
        let mut args = vec!["-h", "127.0.0.1", "-p", &port, "-t", topic, "-q", "1"];
        // Not cleared, and acknowledged by the broker before anything is published.
        args.extend(["-c", "-i", name, "-F", "%t %r %p"]);
        args.extend(more);
        let log = self.world.path(&format!("mosquitto{}.err", self.starts));
        let process = self.world.start(name, Path::new("mosquitto_sub"), &args);
        let subscribed = format!("Sending SUBACK to {name}");
        wait_until("the subscription", 10, || {
            std::fs::read_to_string(&log).ok()?.contains(&subscribed).then_some(())
        });
        process
    }
}

/// Debian has it where only root's PATH leads.
const BROKER: &str = "/usr/sbin/mosquitto";

/// Makes an authority `NAME.pem` in the world's folder, and a certificate `NAME-server.pem`
/// with its key `NAME-server.key` for 127.0.0.1 that is valid for `days`: negative ones are
/// over.
///
/// # Panics
/// When openssl cannot make them.
pub fn certificates(world: &World, name: &str, days: i32) {
    let script = format!(
        "set -e; k='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
         openssl req -x509 $k -keyout {name}.key -out {name}.pem -days 30 -subj /CN={name}
         openssl req $k -keyout {name}-server.key -out {name}.csr -subj /CN=localhost
         echo subjectAltName=IP:127.0.0.1,DNS:localhost >{name}.ext
         openssl x509 -req -in {name}.csr -CA {name}.pem -CAkey {name}.key -CAcreateserial \
             -days {days} -extfile {name}.ext -out {name}-server.pem"
    );
    let output = Command::new("sh").args(["-c", &script]).current_dir(world.folder()).output();
    let output = output.expect("sh runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
