//! A host with a bridge and containers on it, in network namespaces, for the tests of what belongs to containers. It needs root.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use rtnetlink::LinkUnspec;

use super::attach::{BridgeEnd, Order};
use super::{Attached, INTERFACE};
use crate::host::lab::tests::lab_or_skip;
use crate::host::lab::{BRIDGE, Lab, in_namespace, with_netlink};
use crate::host::{HostError, link};

/// An address with the length of its subnet's prefix.
pub fn net(text: &str) -> IpNet {
    text.parse().expect("an address")
}

/// The host `h1` and its bridge, which is up.
pub struct Rig {
    pub lab: Lab,
    pub host: String,
    pub bridge: BridgeEnd,
}

impl Rig {
    /// `prefix` begins the names of its namespaces; `None` where this process may have none.
    pub fn new(prefix: &str) -> Option<Rig> {
        let mut lab = lab_or_skip(prefix)?;
        let host = lab.host("h1").expect("a host");
        lab.bridge("h1", BRIDGE, Some(1400)).expect("a bridge");
        let index = with_netlink(&host, |handle| async move {
            let index = link::by_name(&handle, BRIDGE).await.expect("an answer").expect("the bridge").index;
            link::set(&handle, LinkUnspec::new_with_index(index).up().build(), "set up").await.expect("up");
            index
        });
        let bridge = BridgeEnd { name: BRIDGE.into(), index: index.expect("the namespace") };
        Some(Rig { lab, host, bridge })
    }

    /// A new container, and an order for it.
    pub fn container(&mut self, name: &str, addresses: &[&str]) -> Order {
        let full = self.lab.host(name).expect("a container");
        let netns = PathBuf::from(format!("/run/netns/{full}"));
        Order {
            ident: format!("netns:{}", netns.display()),
            netns,
            interface: INTERFACE.into(),
            addresses: addresses.iter().map(|text| net(text)).collect(),
            multicast_route: true,
            name_server: None,
            bridge: self.bridge.clone(),
        }
    }

    pub fn attach(&self, order: &Order) -> Result<Attached, HostError> {
        in_namespace(&self.host, || super::attach(order)).expect("the namespace")
    }

    /// What a program prints that must succeed.
    #[track_caller]
    pub fn run(&self, name: &str, words: &str) -> String {
        let words: Vec<&str> = words.split_whitespace().collect();
        let output = self.lab.exec(name, words[0], &words[1..]).expect("the program");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// True where an echo comes back within a second.
    pub fn ping(&self, from: &str, to: &str) -> bool {
        let to: IpAddr = to.parse().expect("an address");
        self.lab.ping(from, to, "-c 1 -W 1").expect("ping")
    }
}
