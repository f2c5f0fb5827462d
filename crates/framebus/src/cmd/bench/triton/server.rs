//! The server's processes on this machine, and their CPU time.

use super::super::meters;
use super::Args;
use framebus_engine::triton::is_local;
use framebus_service::{Failure, Kind};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The server and the processes that it started.
pub(super) struct Server {
    pub(super) pid: u32,
    /// Its program's name.
    pub(super) program: String,
}

/// The process that is named, or the one that listens on the port. `None` where it is not
/// on this machine, in another network namespace, or of a user whose files are hidden.
pub(super) fn find(args: &Args) -> Result<Option<Server>, Failure> {
    let here = || is_local(&args.url.host).then(|| listener(args.url.port)).flatten();
    let Some(pid) = args.server_pid.or_else(here) else { return Ok(None) };
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => Ok(Some(Server { pid, program: crate::out::plain(name.trim()) })),
        Err(_) if args.server_pid.is_none() => Ok(None),
        Err(_) => Err(Failure::message(
            Kind::Usage,
            format_args!("--server-pid {pid}: there is no such process"),
        )),
    }
}

impl Server {
    /// CPU time so far of it and its descendants, seconds.
    pub(super) fn cpu_s(&self) -> Option<f64> {
        let parents: Vec<(u32, u32)> =
            pids().filter_map(|pid| Some((pid, meters::parent(pid)?))).collect();
        meters::cpu_s(self.pid)?;
        Some(descendants(self.pid, &parents).into_iter().filter_map(meters::cpu_s).sum())
    }
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// `root` and those below it, of pairs of process and parent.
fn descendants(root: u32, parents: &[(u32, u32)]) -> BTreeSet<u32> {
    let mut found = BTreeSet::from([root]);
    loop {
        let more: Vec<u32> = parents
            .iter()
            .filter(|(pid, parent)| found.contains(parent) && !found.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// The process that has a listening socket of this TCP port, in this network namespace.
fn listener(port: u16) -> Option<u32> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    let text: String =
        tables.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    let sockets: BTreeSet<PathBuf> = listening(&text, port)
        .into_iter()
        .map(|inode| PathBuf::from(format!("socket:[{inode}]")))
        .collect();
    let holders: BTreeSet<u32> = pids().filter(|&pid| holds(pid, &sockets)).collect();
    // Children may have inherited it.
    let own = |pid: &u32| meters::parent(*pid).is_none_or(|parent| !holders.contains(&parent));
    holders.iter().copied().find(own)
}

fn holds(pid: u32, sockets: &BTreeSet<PathBuf>) -> bool {
    let files = std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd"));
    files
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|file| std::fs::read_link(file.path()).ok())
        .any(|target| sockets.contains(&target))
}

/// Inodes of the sockets that listen on `port`. Columns: number, local address, remote
/// address, state, queues, timer, retransmits, uid, timeout, inode (proc(5)).
fn listening(table: &str, port: u16) -> Vec<u64> {
    const LISTEN: &str = "0A";
    let inode = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (_, local_port) = columns.get(1)?.rsplit_once(':')?;
        let listens = *columns.get(3)? == LISTEN
            && u16::from_str_radix(local_port, 16).is_ok_and(|local| local == port);
        if listens { columns.get(9)?.parse().ok() } else { None }
    };
    table.lines().filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn only_sockets_that_listen_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F41 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 0 77 1\n\
             1: 0100007F:1F41 0100007F:1F42 01 00000000:00000000 00:00000000 00000000  1000 0 78 1\n\
             2: 0100007F:1F42 0100007F:1F41 01 00000000:00000000 00:00000000 00000000     7 0 79 1\n";
        assert_eq!(listening(table, 8001), [77]);
        assert_eq!(listening(table, 8002), [0; 0], "connected, not listening");
        assert_eq!(listening("nonsense", 1), [0; 0]);
    }

    #[test]
    fn this_process_is_found_by_a_port_that_it_listens_on() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = socket.local_addr().expect("bound").port();
        assert_eq!(listener(port), Some(std::process::id()));
        drop(socket);
        assert_eq!(listener(port), None);
    }

    #[test]
    fn children_of_children_belong_to_the_server() {
        let parents = [(2, 1), (5, 4), (4, 2), (3, 1), (6, 3)];
        assert_eq!(descendants(2, &parents), BTreeSet::from([2, 4, 5]));
        assert_eq!(descendants(9, &parents), BTreeSet::from([9]));
    }
}
