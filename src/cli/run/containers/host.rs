//! The host itself on the network, and other bridges of it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::desk::{Desk, Known, Steps};
use crate::api::Denied;
use crate::api::containers::{EXPOSED, Expose};
use crate::api::section::Section;
use crate::host::container::{AddressSpec, expose, join};
use crate::host::{HostError, container};

impl Desk {
    /// Gives the host addresses on its bridge, with rules and names.
    pub async fn expose(&self, order: Expose) -> Result<Vec<IpNet>, Denied> {
        let _turn = self.turn(EXPOSED).await;
        self.check_names(&order.names)?;
        let before = self.lock().get(EXPOSED).cloned();
        let mut steps = Steps::default();
        let outcome = self.expose_all(&order, before.as_ref(), &mut steps).await;
        if outcome.is_err() {
            self.forget_exposure(&order, before, &steps).await;
        }
        outcome
    }

    async fn expose_all(&self, order: &Expose, before: Option<&Known>, steps: &mut Steps) -> Result<Vec<IpNet>, Denied> {
        let held = before.map(|known| known.record.addresses.clone()).unwrap_or_default();
        let addresses = self.resolve(EXPOSED, &order.addresses, &held, &mut steps.gained).await?;
        self.no_strangers(&addresses, &held).await?;
        let mut known = before.cloned().unwrap_or_default();
        known.record.add(&addresses, &order.names);
        known.record.plain.retain(|address| !addresses.contains(address));
        if !order.masquerade {
            known.record.plain.extend(&addresses);
        }
        self.remember(EXPOSED, Some(&known.record)).await?;
        self.lock().insert(EXPOSED.to_owned(), known);
        // The rules first: at no moment does the host route from one subnet into another.
        self.enforce().await?;
        let bridge = self.bridge();
        for address in &addresses {
            if expose::expose(&self.kernel().await.host, &bridge, *address).await.map_err(said)? {
                steps.placed.push(*address);
            }
        }
        self.open_doors().await;
        steps.named.clone_from(&addresses);
        let ips: Vec<IpAddr> = addresses.iter().map(IpNet::addr).collect();
        self.add_names(EXPOSED, &order.names, &ips).await?;
        if order.masquerade && !forwards(&addresses) {
            tracing::warn!(
                "this host forwards no packets, so containers do not reach the outside through it; `sysctl -w net.ipv4.ip_forward=1` lets them"
            );
        }
        Ok(addresses)
    }

    /// Refuses an address that somebody else gave the bridge: it is not ours to take away again.
    async fn no_strangers(&self, addresses: &[IpNet], held: &[IpNet]) -> Result<(), Denied> {
        let bridge = self.bridge();
        let present = container::found::addresses_on(&self.kernel().await.host, bridge.index).await.map_err(said)?;
        let among = |list: &[IpNet], address: &IpNet| list.iter().any(|other| other.addr() == address.addr());
        match addresses.iter().find(|address| among(&present, address) && !among(held, address)) {
            Some(address) => Err(Denied::now(format!(
                "could not expose this host as {address}: bridge {} already has this address, and it is not the router's; remove it there, or choose another",
                bridge.name
            ))),
            None => Ok(()),
        }
    }

    /// Takes back what a failed exposure did; an address that cannot be taken from the bridge is kept.
    async fn forget_exposure(&self, order: &Expose, before: Option<Known>, steps: &Steps) {
        let bridge = self.bridge();
        let mut stays = false;
        let held = before.as_ref().map_or(&[][..], |known| &known.record.addresses);
        for address in steps.placed.iter().filter(|address| !held.contains(address)) {
            if let Err(error) = expose::hide(&self.kernel().await.host, &bridge, *address).await {
                tracing::warn!("the host could not be exposed as {address}, and the address stays: {error}");
                stays = true;
            }
        }
        if stays {
            return;
        }
        self.take_back_names(EXPOSED, before.as_ref(), &order.names, &steps.named).await;
        match &before {
            Some(before) => drop(self.lock().insert(EXPOSED.to_owned(), before.clone())),
            None => drop(self.lock().remove(EXPOSED)),
        }
        let enforced = self.enforce().await;
        self.open_doors().await;
        for outcome in [enforced, self.settle(EXPOSED, before.map(|known| known.record), &steps.gained, false).await] {
            outcome.unwrap_or_else(|refusal| tracing::warn!("{refusal}"));
        }
    }

    /// Takes addresses of the host away; its rules go with the last.
    pub async fn hide(&self, addresses: Vec<AddressSpec>, all: bool) -> Result<Vec<IpNet>, Denied> {
        let _turn = self.turn(EXPOSED).await;
        let Some(mut known) = self.lock().get(EXPOSED).cloned() else { return Ok(Vec::new()) };
        let gone = self.select(&addresses, all, &known.record.addresses)?;
        let bridge = self.bridge();
        for address in &gone {
            expose::hide(&self.kernel().await.host, &bridge, *address).await.map_err(said)?;
        }
        known.record.remove(&gone);
        let ips: Vec<IpAddr> = gone.iter().map(IpNet::addr).collect();
        if let Some(names) = self.books.names.as_deref().filter(|_| !ips.is_empty()) {
            names.remove(EXPOSED, None, &ips).await?;
        }
        let left = Some(known).filter(|known| !known.record.addresses.is_empty());
        match &left {
            Some(left) => drop(self.lock().insert(EXPOSED.to_owned(), left.clone())),
            None => drop(self.lock().remove(EXPOSED)),
        }
        let enforced = if gone.is_empty() { Ok(()) } else { self.enforce().await };
        self.open_doors().await;
        let settled = self.settle(EXPOSED, left.map(|known| known.record), &gone, false).await;
        enforced.and(settled).map(|()| gone)
    }

    /// What `status`, `report` and the metrics say of the exposed host.
    pub fn exposure(&self) -> Section {
        let record = self.lock().get(EXPOSED).map(|known| known.record.clone()).unwrap_or_default();
        let names_of = |address: IpNet| record.names.iter().filter(move |(_, of)| of.contains(&address)).map(|(name, _)| name.as_str());
        let exposures = record.exposures();
        let lines = exposures.iter().map(|exposure| {
            let seen = if exposure.masquerade { "masqueraded" } else { "as it is" };
            let named: String = names_of(exposure.address).map(|name| format!(" {name}")).collect();
            format!("{} {seen}{named}\n", exposure.address)
        });
        let rows: Vec<_> = exposures
            .iter()
            .map(|exposure| {
                let names: Vec<&str> = names_of(exposure.address).collect();
                serde_json::json!({ "address": exposure.address, "masquerade": exposure.masquerade, "names": names })
            })
            .collect();
        let addresses: Vec<String> = exposures.iter().map(|exposure| exposure.address.to_string()).collect();
        Section {
            name: "expose",
            overview: vec![("Exposed".into(), if addresses.is_empty() { "no".into() } else { addresses.join(" ") })],
            page: lines.collect(),
            json: serde_json::json!({ "exposed": rows }),
            metrics: format!(
                "# HELP weave_exposed_addresses Addresses of this host on its bridge.\n# TYPE weave_exposed_addresses gauge\n\
                 weave_exposed_addresses {}\n",
                addresses.len()
            ),
        }
    }

    /// Has other programs' firewalls let pass what the host routes now.
    async fn open_doors(&self) {
        if !self.doorbell.ring(self.exposed()).await {
            tracing::warn!(
                "the programs of the firewall do not answer in time: what this host routes for containers may be dropped for a while"
            );
        }
    }

    /// Joins another bridge.
    pub async fn join(&self, other: &str) -> Result<(), Denied> {
        let _turn = self.turn("weave:bridges").await;
        join::join(&self.kernel().await.host, &self.bridge(), other).await.map(drop).map_err(said)
    }

    /// Takes everything away. What fails does not keep the rest.
    pub async fn reset(&self) -> Result<(), Denied> {
        let mut failures = Vec::new();
        let bridge = self.bridge();
        failures.extend(self.hide(Vec::new(), true).await.err());
        let ends = container::found::ends(&self.kernel().await.host, &bridge.name).await.map_err(said)?;
        for end in ends {
            let _turn = self.turn(&end.ident).await;
            failures.extend(container::found::remove(&self.kernel().await.host, end.index, &end.name).await.map_err(said).err());
            failures.extend(self.bury(&end.ident, true).await.err());
        }
        failures.extend(join::part(&self.kernel().await.host, &bridge).await.map_err(said).err());
        self.lock().clear();
        failures.extend(self.enforce().await.err());
        failures.into_iter().next().map_or(Ok(()), Err)
    }
}

fn said(error: HostError) -> Denied {
    Denied::now(error)
}

/// True where the host forwards packets of the addresses' families.
fn forwards(addresses: &[IpNet]) -> bool {
    let on = |knob: &str| std::fs::read_to_string(format!("/proc/sys/net/{knob}")).is_ok_and(|value| value.trim() != "0");
    let any = |v4: bool| addresses.iter().any(|address| address.addr().is_ipv4() == v4);
    (!any(true) || on("ipv4/ip_forward")) && (!any(false) || on("ipv6/conf/all/forwarding"))
}
