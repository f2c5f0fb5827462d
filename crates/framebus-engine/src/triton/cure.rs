//! What a server's refusal of shared memory means on this machine, and what helps.

use std::net::{ToSocketAddrs, UdpSocket};

/// Whether this host is the machine that we run on: one of its addresses is.
#[must_use]
pub fn is_local(host: &str) -> bool {
    let Ok(addresses) = (host, 0).to_socket_addrs() else { return false };
    // A socket can only be bound to an address of our own; nothing is sent.
    addresses.into_iter().any(|address| UdpSocket::bind((address.ip(), 0)).is_ok())
}

/// The server was told of the region, and does not know it: it was started again.
pub(super) fn is_forgotten(message: &str) -> bool {
    message.contains("Unable to find") && message.contains("shared memory region")
}

/// The server does not serve the model any more: it stops, or the model was unloaded. It
/// says "unknown model" then, also when it knew it a moment ago.
pub(super) fn is_unloaded(message: &str) -> bool {
    message.contains("Request for unknown model")
}

/// The refusal with its cure. `port` is the server's.
pub(super) fn refused(message: &str, port: u16) -> String {
    let own = rustix::process::getuid().as_raw();
    let cure = if message.contains("shared memory is disabled") {
        "start it with --allow-client-shm=true, without which Triton refuses it from 2.69 on"
            .to_owned()
    } else if message.contains("Unable to open shared memory region") {
        match listener_uid(port) {
            Some(uid) if uid != own && uid != 0 => format!(
                "it runs as user {uid} and our memory is open to user {own} only; run both as one \
                 user"
            ),
            _ => "it does not see this machine's /dev/shm; a container needs --ipc=host, or the \
                  IPC namespace of framebus"
                .to_owned(),
        }
    } else {
        "see the server's log".to_owned()
    };
    format!("{message} ({cure})")
}

/// Who listens on this TCP port, by the kernel's table of this network namespace.
fn listener_uid(port: u16) -> Option<u32> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    let text: String =
        tables.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    listener(&text, port)
}

/// Columns: number, local address, remote address, state, queues, timer, retransmits, uid.
fn listener(table: &str, port: u16) -> Option<u32> {
    const LISTEN: &str = "0A";
    table.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (_, local_port) = columns.get(1)?.rsplit_once(':')?;
        let listens = *columns.get(3)? == LISTEN
            && u16::from_str_radix(local_port, 16).is_ok_and(|local| local == port);
        listens.then(|| columns.get(7)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_are_local_and_others_are_not() {
        assert!(is_local("127.0.0.1") && is_local("localhost"));
        // From the block for documentation: nobody's.
        assert!(!is_local("192.0.2.7"));
        assert!(!is_local("no.such.host.invalid"));
    }

    #[test]
    fn the_listener_is_found_in_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n\
             0: 0100007F:1F41 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 0 1 1\n\
             1: 0100007F:1F42 0100007F:1F41 01 00000000:00000000 00:00000000 00000000     7 0 1 1\n";
        assert_eq!(listener(table, 8001), Some(1000));
        assert_eq!(listener(table, 8002), None, "connected, not listening");
        assert_eq!(listener("nonsense", 1), None);
    }

    #[test]
    fn refusals_name_their_cure() {
        let disabled = "Client shared memory is disabled. Start the server with …";
        assert!(refused(disabled, 1).contains("--allow-client-shm=true"));
        let unseen = "Unable to open shared memory region: '/framebus-triton-1-1'";
        assert!(refused(unseen, 1).contains("--ipc=host"));
        assert!(is_forgotten("Unable to find shared memory region: 'a'"));
        assert!(is_forgotten("Unable to find system shared memory region: 'a'"));
        assert!(!is_forgotten(unseen));
    }
}
