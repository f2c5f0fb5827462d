//! What the processes and the instance hold on to, looked at once a second.

use crate::inject::SECOND_NS;
use framebus_bus::Domain;
use framebus_service::clock;
use framebus_tests::{Usage, World, shm_files};
use std::collections::BTreeMap;

/// A process is started up after so long.
const WARM_NS: u64 = 3 * SECOND_NS;

/// A process while it lived.
struct Life {
    role: &'static str,
    since_ns: u64,
    first: Option<Usage>,
    last: Usage,
}

/// Files of the instance in /dev/shm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Shm {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
}

impl Shm {
    pub(crate) fn of(domain: &Domain) -> Self {
        let files = shm_files(domain);
        Self { files: files.len(), bytes: files.values().sum() }
    }
}

/// Growth within a life, the largest of each figure over all lives of a role.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Growth {
    pub(crate) lives: usize,
    pub(crate) longest_ns: u64,
    pub(crate) fds: i64,
    pub(crate) threads: i64,
    pub(crate) rss_kib: i64,
}

#[derive(Default)]
pub(crate) struct Survey {
    lives: BTreeMap<u32, Life>,
    pub(crate) most: Shm,
}

impl Survey {
    pub(crate) fn look(&mut self, world: &World, domain: &Domain) {
        let now_ns = clock::monotonic_ns();
        let shm = Shm::of(domain);
        self.most.files = self.most.files.max(shm.files);
        self.most.bytes = self.most.bytes.max(shm.bytes);
        let own = (std::process::id(), "this reader".to_owned());
        for (pid, line) in world.processes().into_iter().chain([own]) {
            let (Some(role), Some(usage)) = (role(&line), Usage::try_of(pid)) else { continue };
            let life = self.lives.entry(pid).or_insert(Life {
                role,
                since_ns: now_ns,
                first: None,
                last: usage,
            });
            if life.first.is_none() && now_ns >= life.since_ns + WARM_NS {
                life.first = Some(usage);
            }
            life.last = usage;
        }
    }

    pub(crate) fn growth(&self) -> BTreeMap<&'static str, Growth> {
        let now_ns = clock::monotonic_ns();
        let mut roles: BTreeMap<&'static str, Growth> = BTreeMap::new();
        for life in self.lives.values() {
            let Some(first) = life.first else { continue };
            let most = roles.entry(life.role).or_default();
            let grown = |first: u64, last: u64| last as i64 - first as i64;
            most.lives += 1;
            most.longest_ns = most.longest_ns.max(now_ns - life.since_ns);
            most.fds = most.fds.max(grown(first.fds as u64, life.last.fds as u64));
            most.threads = most.threads.max(grown(first.threads as u64, life.last.threads as u64));
            most.rss_kib = most.rss_kib.max(grown(first.rss_kib, life.last.rss_kib));
        }
        roles
    }
}

fn role(line: &str) -> Option<&'static str> {
    let roles = [
        ("framebus-capture", "capture"),
        ("framebus-infer", "inference"),
        ("framebus-sink", "sink"),
        ("framebus up", "up"),
        ("this reader", "this reader"),
    ];
    roles.into_iter().find(|(words, _)| line.contains(words)).map(|(_, role)| role)
}
