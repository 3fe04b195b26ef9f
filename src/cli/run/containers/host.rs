//! The host itself on the network, and other bridges of it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::desk::{Desk, Known};
use crate::api::Refusal;
use crate::api::containers::{EXPOSED, Expose};
use crate::host::container::{AddressSpec, expose, join};
use crate::host::{HostError, container};

impl Desk {
    /// Gives the host addresses on its bridge, with rules and names.
    pub async fn expose(&self, order: Expose) -> Result<Vec<IpNet>, Refusal> {
        let _turn = self.turn(EXPOSED).await;
        let before = self.lock().get(EXPOSED).cloned();
        let mut gained = Vec::new();
        let outcome = self.expose_all(&order, before.as_ref(), &mut gained).await;
        if outcome.is_err() {
            self.forget_exposure(before, &gained).await;
        }
        outcome
    }

    async fn expose_all(&self, order: &Expose, before: Option<&Known>, gained: &mut Vec<IpNet>) -> Result<Vec<IpNet>, Refusal> {
        let held = before.map(|known| known.record.addresses.clone()).unwrap_or_default();
        let addresses = self.resolve(EXPOSED, &order.addresses, &held, gained).await?;
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
            expose::expose(&self.kernel().await.host, &bridge, *address).await.map_err(said)?;
        }
        let ips: Vec<IpAddr> = addresses.iter().map(IpNet::addr).collect();
        self.add_names(EXPOSED, &order.names, &ips).await?;
        if order.masquerade && !forwards(&addresses) {
            tracing::warn!(
                "this host forwards no packets, so containers do not reach the outside through it; `sysctl -w net.ipv4.ip_forward=1` lets them"
            );
        }
        Ok(addresses)
    }

    async fn forget_exposure(&self, before: Option<Known>, gained: &[IpNet]) {
        let bridge = self.bridge();
        for address in gained {
            if let Err(error) = expose::hide(&self.kernel().await.host, &bridge, *address).await {
                tracing::warn!("the host could not be exposed as {address}, and the address stays: {error}");
            }
        }
        match &before {
            Some(before) => drop(self.lock().insert(EXPOSED.to_owned(), before.clone())),
            None => drop(self.lock().remove(EXPOSED)),
        }
        let remembered = self.remember(EXPOSED, before.as_ref().map(|known| &known.record)).await;
        for outcome in [remembered, self.enforce().await] {
            outcome.unwrap_or_else(|refusal| tracing::warn!("{refusal}"));
        }
        for address in gained {
            self.free(EXPOSED, *address).await;
        }
    }

    /// Takes addresses of the host away; its rules go with the last.
    pub async fn hide(&self, addresses: Vec<AddressSpec>, all: bool) -> Result<Vec<IpNet>, Refusal> {
        let _turn = self.turn(EXPOSED).await;
        let Some(mut known) = self.lock().get(EXPOSED).cloned() else { return Ok(Vec::new()) };
        let gone = self.select(&addresses, all, &known.record.addresses).await?;
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
        self.remember(EXPOSED, left.as_ref().map(|known| &known.record)).await?;
        match left {
            Some(left) => drop(self.lock().insert(EXPOSED.to_owned(), left)),
            None => drop(self.lock().remove(EXPOSED)),
        }
        if !gone.is_empty() {
            self.enforce().await?;
        }
        for address in &gone {
            self.free(EXPOSED, *address).await;
        }
        Ok(gone)
    }

    /// Joins another bridge.
    pub async fn join(&self, other: &str) -> Result<(), Refusal> {
        let _turn = self.turn("weave:bridges").await;
        join::join(&self.kernel().await.host, &self.bridge(), other).await.map(drop).map_err(said)
    }

    /// Takes everything away. What fails does not keep the rest.
    pub async fn reset(&self) -> Result<(), Refusal> {
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

fn said(error: HostError) -> Refusal {
    Refusal(error.to_string())
}

/// True where the host forwards packets of the addresses' families.
fn forwards(addresses: &[IpNet]) -> bool {
    let on = |knob: &str| std::fs::read_to_string(format!("/proc/sys/net/{knob}")).is_ok_and(|value| value.trim() != "0");
    let any = |v4: bool| addresses.iter().any(|address| address.addr().is_ipv4() == v4);
    (!any(true) || on("ipv4/ip_forward")) && (!any(false) || on("ipv6/conf/all/forwarding"))
}
