//! TCP in place of UDP: the ports that are claimed for it, the thread that carries it, and dialling.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use mio::net::TcpListener;

use super::super::RunConfig;
use super::planes::{Planes, send};
use crate::io::clock::Clock;
use crate::io::mailbox::Sender;
use crate::io::tcp::{self, TcpConnections, TcpCounters, TcpError, TcpInput, TcpParts, TcpThread};
use crate::io::udp::Joints;
use crate::mesh::command::{Command, Target};
use crate::wire::Address;

/// What is claimed before anything on the host is changed.
pub struct Claim {
    listeners: Vec<TcpListener>,
    binds: Vec<IpAddr>,
    /// Counters of the thread.
    pub counters: Arc<TcpCounters>,
    /// Its connections.
    pub open: Arc<TcpConnections>,
}

impl Claim {
    /// Opens the ports of `--tcp-listen`: where no address is given, those of `--bind`, else all.
    pub fn make(config: &RunConfig) -> Result<Claim, TcpError> {
        let all = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
        let usual = if config.bind.is_empty() { &all[..] } else { &config.bind };
        let mut addresses = Vec::new();
        for (ip, port) in &config.tcp_listen {
            match ip {
                Some(ip) => addresses.push(SocketAddr::new(*ip, *port)),
                None => addresses.extend(usual.iter().map(|ip| SocketAddr::new(*ip, *port))),
            }
        }
        Ok(Claim { listeners: tcp::listen(&addresses)?, binds: config.bind.clone(), counters: Arc::default(), open: Arc::default() })
    }

    /// The thread, and its mailbox.
    pub fn thread(self, joints: Joints, clock: Clock) -> anyhow::Result<(TcpThread, Sender<TcpInput>)> {
        let Claim { listeners, binds, counters, open } = self;
        TcpThread::new(TcpParts { listeners, joints, binds, counters, open, clock })
            .context("cannot make the poll of the thread that carries TCP")
    }
}

/// Connects to a target by TCP and tells the mesh plane, which takes the connection for the target's address.
pub fn dial(planes: &Planes, target: Target) -> impl FnOnce(Vec<SocketAddr>) + Send + use<> {
    let (mesh, tcp) = (planes.mesh(), planes.tcp());
    move |addresses| {
        let answer = move |made: Result<Address, String>| {
            send(&mesh, Command::Resolved(target, made.map(|address| vec![address])));
        };
        // Where the thread is too busy the mesh plane asks again.
        if tcp.try_send(TcpInput::Dial(addresses, Box::new(answer))).is_err() {
            tracing::warn!("the thread that carries TCP is too busy and did not take a target");
        }
    }
}
