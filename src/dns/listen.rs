//! Where the name server listens: addresses come and go, and somebody else may have the port.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

/// Bytes of queries that may wait in a socket: some thousands of them.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Address and port.
    pub address: SocketAddr,
    /// The interface, by name and index, that queries come from and answers go out of, where the routing table does not say so.
    pub device: Option<(String, u32)>,
}

impl Place {
    /// An address that is reached as the routing table says.
    pub fn plain(address: SocketAddr) -> Place {
        Place { address, device: None }
    }
}

/// Where it listens, and why not where it does not; shared with whoever asks.
#[derive(Clone, Debug, Default)]
pub struct Ears(Arc<Mutex<BTreeMap<SocketAddr, Result<(), String>>>>);

impl Ears {
    /// True for an address at which this name server answers.
    pub fn listens(&self, address: SocketAddr) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&address).is_some_and(Result::is_ok)
    }

    /// Every address that it is to listen on, and the reason where it does not.
    pub fn all(&self) -> BTreeMap<SocketAddr, Result<(), String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, address: SocketAddr, state: Result<(), String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(address, state);
    }

    fn remove(&self, address: SocketAddr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&address);
    }
}

/// The sockets of every place, each served by tasks.
pub struct Listening {
    running: BTreeMap<Place, Vec<JoinHandle<()>>>,
    ears: Ears,
}

impl Listening {
    /// Nowhere yet.
    pub fn new(ears: Ears) -> Listening {
        Listening { running: BTreeMap::new(), ears }
    }

    /// Listens on these places and no others; `serve` starts the tasks of a new one. False where some are not to be had now: they are said
    /// once, and are to be tried again.
    pub fn settle(&mut self, wanted: &BTreeSet<Place>, serve: impl Fn(UdpSocket, TcpListener) -> Vec<JoinHandle<()>>) -> bool {
        let gone: Vec<Place> = self.running.keys().filter(|place| !wanted.contains(*place)).cloned().collect();
        for place in gone {
            for task in self.running.remove(&place).unwrap_or_default() {
                task.abort();
            }
            self.ears.remove(place.address);
        }
        for address in self.ears.all().into_keys().filter(|address| !wanted.iter().any(|place| place.address == *address)) {
            self.ears.remove(address);
        }
        let mut all = true;
        for place in wanted.iter().filter(|place| !self.running.contains_key(*place)).cloned().collect::<Vec<_>>() {
            match open(&place) {
                Ok((udp, tcp)) => {
                    if self.ears.all().contains_key(&place.address) {
                        tracing::info!("the name server listens on {} now", place.address);
                    }
                    self.ears.set(place.address, Ok(()));
                    self.running.insert(place, serve(udp, tcp));
                }
                Err(error) => {
                    all = false;
                    self.complain(place.address, &error);
                }
            }
        }
        all
    }

    fn complain(&self, address: SocketAddr, error: &io::Error) {
        let told = self.ears.all().get(&address).cloned();
        let sentence = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program has this address and port; stop it, or choose other addresses with --dns-listen".into()
            }
            io::ErrorKind::PermissionDenied => "this needs the capability CAP_NET_BIND_SERVICE".into(),
            _ => error.to_string(),
        };
        // An address that was just added may take a moment until it can be used.
        let young = error.kind() == io::ErrorKind::AddrNotAvailable && told.is_none();
        if told != Some(Err(sentence.clone())) && !young {
            tracing::warn!("the name server cannot listen on {address}: {sentence}; it tries again");
        }
        self.ears.set(address, Err(sentence));
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        for task in self.running.values().flatten() {
            task.abort();
        }
    }
}

/// Opens both sockets of a place, or none.
fn open(place: &Place) -> io::Result<(UdpSocket, TcpListener)> {
    let domain = Domain::for_address(place.address);
    let socket = |kind, protocol| -> io::Result<Socket> {
        let socket = Socket::new(domain, kind, Some(protocol))?;
        socket.set_nonblocking(true)?;
        if let Some((device, _)) = &place.device {
            socket.bind_device(Some(device.as_bytes()))?;
        }
        Ok(socket)
    };
    let udp = socket(Type::DGRAM, Protocol::UDP)?;
    // The kernel gives what it may.
    let _ = udp.set_recv_buffer_size(RECEIVE_BUFFER);
    udp.bind(&place.address.into())?;
    let tcp = socket(Type::STREAM, Protocol::TCP)?;
    // Connections that are just being closed do not keep a restarted router from its port.
    tcp.set_reuse_address(true)?;
    tcp.bind(&place.address.into())?;
    tcp.listen(BACKLOG)?;
    Ok((UdpSocket::from_std(udp.into())?, TcpListener::from_std(tcp.into())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(port: u16) -> Place {
        Place::plain(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    fn serve(udp: UdpSocket, tcp: TcpListener) -> Vec<JoinHandle<()>> {
        vec![tokio::spawn(async move {
            let _held = (udp, tcp);
            std::future::pending().await
        })]
    }

    #[tokio::test]
    async fn a_busy_port_is_taken_once_it_is_free() {
        let other = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let place = place(other.local_addr().expect("an address").port());
        let ears = Ears::default();
        let mut listening = Listening::new(ears.clone());
        let wanted = BTreeSet::from([place.clone()]);
        assert!(!listening.settle(&wanted, serve));
        assert!(!ears.listens(place.address));
        assert!(ears.all()[&place.address].as_ref().is_err_and(|why| why.contains("--dns-listen")));
        drop(other);
        assert!(listening.settle(&wanted, serve));
        assert!(ears.listens(place.address));
        assert!(listening.settle(&wanted, serve), "it goes on as it is");
        assert!(listening.settle(&BTreeSet::new(), serve));
        assert!(ears.all().is_empty());
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        std::net::UdpSocket::bind(place.address).expect("the port is given back");
    }
}
