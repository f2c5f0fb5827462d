//! Other machines: network namespaces, each behind a cable that can be pulled.

use crate::skip;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// Boxes with a cable to this machine each; they go when dropped.
#[derive(Debug)]
pub struct Boxes {
    names: Vec<String>,
    subnet: u8,
}

/// Begin of the names, before the number of the process that made them.
const NAME: &str = "fbz";
static MADE: AtomicU32 = AtomicU32::new(0);

impl Boxes {
    /// Makes `count` of them. `None`, after saying SKIPPED, where that is not allowed.
    ///
    /// # Panics
    /// When it is not allowed and `FRAMEBUS_REQUIRE_ASSETS=1`, or the kernel has begun and
    /// does not go on.
    #[must_use]
    pub fn start(count: usize) -> Option<Self> {
        remove_old();
        let own = std::process::id();
        let first = MADE.fetch_add(count as u32, Ordering::Relaxed);
        let mut boxes = Self { names: Vec::new(), subnet: 80 + (own % 100) as u8 };
        for number in 0..count {
            // Interfaces have names of 15 bytes at most.
            let name = format!("{NAME}{own}x{}", first + number as u32);
            let made = ip(&format!("netns add {name}"));
            if !made.as_ref().is_ok_and(|output| output.status.success()) {
                skip(&format!("network namespaces need root and `ip`: {made:?}"));
                return None;
            }
            boxes.names.push(name.clone());
            let (here, there) = (boxes.here(number), boxes.there(number));
            for line in [
                format!("link add {name} type veth peer name eth0 netns {name}"),
                format!("addr add {here}/30 dev {name}"),
                format!("link set {name} up"),
                format!("-n {name} addr add {there}/30 dev eth0"),
                format!("-n {name} link set eth0 up"),
                format!("-n {name} link set lo up"),
            ] {
                must(&line);
            }
        }
        Some(boxes)
    }

    /// Address of this machine, as a box sees it.
    #[must_use]
    pub fn here(&self, number: usize) -> String {
        format!("10.{}.{}.{}", self.subnet, std::process::id() / 100 % 250, 4 * number + 1)
    }

    fn there(&self, number: usize) -> String {
        format!("10.{}.{}.{}", self.subnet, std::process::id() / 100 % 250, 4 * number + 2)
    }

    /// A command's begin that runs the rest in a box.
    #[must_use]
    pub fn inside<'a>(&'a self, number: usize, program: &'a Path) -> Vec<&'a str> {
        let program = program.to_str().expect("paths of tests are text");
        vec!["netns", "exec", &self.names[number], program]
    }

    /// Pulls a box's cable at its other end: packets vanish, nobody is told.
    ///
    /// # Panics
    /// When the kernel does not.
    pub fn pull(&self, number: usize) {
        must(&format!("-n {} link set eth0 down", self.names[number]));
    }

    /// Plugs it in again.
    ///
    /// # Panics
    /// When the kernel does not.
    pub fn plug(&self, number: usize) {
        must(&format!("-n {} link set eth0 up", self.names[number]));
    }
}

impl Drop for Boxes {
    fn drop(&mut self) {
        for name in &self.names {
            // The cable goes with its end.
            let _ = ip(&format!("netns delete {name}"));
            let _ = ip(&format!("link delete {name}"));
        }
    }
}

/// Boxes of tests that were killed.
fn remove_old() {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let maker = name.strip_prefix(NAME).and_then(|rest| rest.split_once('x'));
        if let Some((pid, _)) = maker
            && !Path::new("/proc").join(pid).exists()
        {
            let _ = ip(&format!("netns delete {name}"));
        }
    }
}

fn ip(line: &str) -> std::io::Result<Output> {
    Command::new("ip").args(line.split(' ')).output()
}

fn must(line: &str) {
    let output = ip(line).expect("ip runs");
    assert!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr));
}
