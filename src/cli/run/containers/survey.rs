//! Compares with the kernel: at the start, and whenever something may have changed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ipnet::IpNet;

use super::super::complain;
use super::addresses::Debt;
use super::desk::{Desk, Known};
use super::record::Record;
use crate::api::Denied;
use crate::api::containers::EXPOSED;
use crate::host::HostError;
use crate::host::container::{BridgeEnd, End, expose, found, join, resize};
use crate::store::db::Table;

impl Desk {
    /// Finds everything that an earlier router left in place, and takes it over; false where that has to be tried again. What it says to the
    /// others goes on in the background.
    pub async fn take_over(self: &Arc<Self>) -> bool {
        let bridge = self.bridge();
        let kernel = self.kernel().await;
        for swept in [found::sweep(&kernel.host, &bridge.name).await, join::sweep(&kernel.host, &bridge.name).await] {
            match swept {
                Ok(swept) => swept.iter().for_each(|name| tracing::info!("{name} was never finished by an earlier router; it is removed")),
                Err(error) => complain("cannot look for unfinished interfaces", &error),
            }
        }
        drop(kernel);
        let rows = self.db.all(Table::Containers).await.unwrap_or_else(|error| {
            tracing::error!("{error}; containers are found by what the kernel knows alone");
            Vec::new()
        });
        let mut records: BTreeMap<String, Record> =
            rows.into_iter().map(|(ident, bytes)| (ident, Record::from_bytes(&bytes).unwrap_or_default())).collect();
        match self.find(&mut records).await {
            Ok(count) if count > 0 => tracing::info!("{count} containers are attached already"),
            Ok(_) => {}
            // Without knowing who is there nobody may be called dead.
            Err(error) => {
                complain("cannot look for attached containers, and tries again", &error);
                return false;
            }
        }
        if records.get(EXPOSED).is_some_and(|record| !record.addresses.is_empty())
            && let Some(record) = records.remove(EXPOSED)
        {
            self.lock().insert(EXPOSED.to_owned(), Known { record, port: None });
        }
        if !self.reserve().await {
            return false;
        }
        self.doorbell.tell(self.exposed());
        self.publish();
        self.enforce_first().await;
        self.look().await;
        let desk = Arc::clone(self);
        tokio::spawn(async move {
            for ident in records.keys() {
                let _turn = desk.turn(ident).await;
                // Somebody may have attached it again meanwhile.
                if desk.lock().contains_key(ident) {
                    continue;
                }
                // It went while no router was there to see it. The host never goes: it was killed while it was being exposed, and has nothing yet.
                if let Err(refusal) = desk.bury(ident, ident == EXPOSED).await {
                    tracing::warn!("{ident} is gone, and this could not be noted: {refusal}");
                }
            }
            desk.give_up_unfinished().await;
            desk.reaffirm().await;
        });
        true
    }

    /// Gives back what the host was to have besides what it has, when the router was killed.
    async fn give_up_unfinished(&self) {
        let Some(book) = self.books.addresses.as_deref() else { return };
        let _turn = self.turn(EXPOSED).await;
        let Some(known) = self.lock().get(EXPOSED).cloned() else { return };
        let has = |address: &IpNet| known.record.addresses.iter().chain(&known.record.leaving).any(|other| other.addr() == address.addr());
        for address in book.lookup(EXPOSED).await.unwrap_or_default().iter().filter(|address| !has(address)) {
            match book.free(EXPOSED, Some(address.addr())).await {
                Ok(()) => tracing::info!("the host was never exposed as {address}, which goes back"),
                Err(refusal) => tracing::warn!("the host was never exposed as {address}, and it cannot be given back: {refusal}"),
            }
        }
    }

    /// Takes every attached container in; its record leaves `records`.
    async fn find(&self, records: &mut BTreeMap<String, Record>) -> Result<usize, HostError> {
        let ends = found::ends(&self.kernel().await.host, &self.bridge().name).await?;
        for end in &ends {
            let Some(attachment) = found::look(&self.kernel().await.strict, end).await? else { continue };
            let mut record = records.remove(&end.ident).filter(|record| !record.addresses.is_empty()).unwrap_or_else(|| {
                // What was remembered is lost: it has what it has.
                let mut record = Record::default();
                record.add(&attachment.addresses, &[]);
                record
            });
            // It may have given itself another MAC meanwhile.
            let mac = *record.mac.get_or_insert(attachment.mac);
            self.lock().insert(end.ident.clone(), Known { record, port: Some((end.name.clone(), mac)) });
        }
        Ok(ends.len())
    }

    /// Says to those who give addresses out and keep names what is in use here.
    async fn reaffirm(&self) {
        for ident in self.known().into_keys() {
            let _turn = self.turn(&ident).await;
            // It may have changed while others were spoken of.
            let Some(known) = self.lock().get(&ident).cloned() else { continue };
            if !known.record.leaving.is_empty()
                && let Err(refusal) = self.settle(&ident, Some(known.record.clone()), &[], false).await
            {
                tracing::warn!("{refusal}");
            }
            for address in &known.record.addresses {
                if let Some(book) = self.books.addresses.as_deref()
                    && let Err(refusal) = book.claim(&ident, *address).await
                {
                    tracing::warn!("{ident} has the address {address}, which it may not keep: {refusal}");
                }
            }
            for (name, addresses) in &known.record.names {
                let ips: Vec<IpAddr> = addresses.iter().map(IpNet::addr).collect();
                if let Err(refusal) = self.add_names(&ident, std::slice::from_ref(name), &ips).await {
                    tracing::warn!("{ident} is without its name {name}: {refusal}");
                }
            }
        }
    }

    /// Puts back what fell off the bridge, and notices who is gone.
    pub async fn look(self: &Arc<Self>) {
        let bridge = self.bridge();
        let ends = match found::ends(&self.kernel().await.host, &bridge.name).await {
            Ok(ends) => ends,
            Err(error) => return complain("cannot look after containers", &error),
        };
        for end in ends.iter().filter(|end| end.bridge != Some(bridge.index)) {
            match found::plug(&self.kernel().await.host, end.index, bridge.index).await {
                Ok(()) => tracing::info!("{} is plugged into bridge {} again", end.ident, bridge.name),
                Err(error) => complain("cannot plug a container in again", &error),
            }
        }
        if let Err(error) = join::keep(&self.kernel().await.host, &bridge).await {
            complain("cannot look after a bridge that was joined to this one", &error);
        }
        self.expose_again(&bridge).await;
        self.miss(&ends);
        self.fit(&bridge, &ends).await;
    }

    /// Gives containers the bridge's MTU where that is another than at the last look: `--mtu` may change between two lives of a router.
    async fn fit(self: &Arc<Self>, bridge: &BridgeEnd, ends: &[End]) {
        let Ok(Some(found)) = crate::host::link::by_index(&self.kernel().await.host, bridge.index).await else { return };
        if self.mtu.swap(found.mtu, Ordering::Relaxed) == found.mtu {
            return;
        }
        for end in ends.iter().filter(|end| end.mtu != found.mtu).cloned() {
            let (desk, bridge) = (Arc::clone(self), bridge.clone());
            tokio::spawn(async move {
                let ident = end.ident.clone();
                let _turn = desk.turn(&ident).await;
                let netns = desk.lock().get(&ident).and_then(|known| known.record.namespace_of(&ident));
                let resized = match netns {
                    Some(netns) => desk.blocking("resize", move || resize(&bridge, &end, &netns)).await,
                    None => Err(Denied::now("where its network namespace is was never told")),
                };
                match resized {
                    Ok(()) => tracing::info!("{ident} has the bridge's MTU of {} now", found.mtu),
                    Err(refusal) => {
                        tracing::warn!(
                            "{ident} keeps an MTU that is not the bridge's {}, until it is attached again: {refusal}",
                            found.mtu
                        );
                    }
                }
            });
        }
    }

    /// Gives the host back what somebody took from the bridge. Whoever is exposing or hiding sees to it himself.
    async fn expose_again(&self, bridge: &BridgeEnd) {
        if self.is_busy(EXPOSED) {
            return;
        }
        let _turn = self.turn(EXPOSED).await;
        for address in self.exposed() {
            match expose::expose(&self.kernel().await.host, bridge, address).await {
                Ok(true) => tracing::info!("the host has its address {address} on bridge {} again", bridge.name),
                Ok(false) => {}
                Err(error) => complain("cannot give the host its address back", &error),
            }
        }
    }

    /// Those that are known and not there any more.
    fn miss(self: &Arc<Self>, ends: &[End]) {
        let here = |ident: &String| ends.iter().any(|end| end.ident == *ident);
        let known: Vec<String> = self.lock().keys().filter(|ident| *ident != EXPOSED && !here(ident)).cloned().collect();
        for ident in known.into_iter().filter(|ident| !self.is_busy(ident)) {
            let desk = Arc::clone(self);
            tokio::spawn(async move {
                let _turn = desk.turn(&ident).await;
                // Somebody may have attached it again meanwhile.
                let name = desk.lock().get(&ident).and_then(|known| known.port.clone()).map(|port| port.0);
                let Some(name) = name else { return };
                if !matches!(crate::host::link::by_name(&desk.kernel().await.host, &name).await, Ok(None)) {
                    return;
                }
                tracing::info!("{ident} is gone");
                if let Err(refusal) = desk.bury(&ident, false).await {
                    tracing::warn!("{ident} is gone, and this could not be noted: {refusal}");
                }
            });
        }
    }

    /// A container is gone: its names at once, its addresses after a while, or `at_once`. It is forgotten when that was noted.
    pub(super) async fn bury(&self, ident: &str, at_once: bool) -> Result<(), Denied> {
        let was = self.lock().remove(ident);
        let names = match self.books.names.as_deref() {
            Some(names) => names.remove(ident, None, &[]).await,
            None => Ok(()),
        };
        let addresses = match (self.books.addresses.as_deref(), at_once) {
            (Some(book), false) => book.released(ident).await,
            (Some(book), true) => book.free(ident, None).await,
            (None, _) => Ok(()),
        };
        let enforced = if was.is_some() { self.enforce_ports().await } else { Ok(()) };
        let settled = names.and(addresses);
        let forgotten = match &settled {
            Ok(()) => {
                self.debts().remove(ident);
                self.remember(ident, None).await
            }
            Err(refusal) => {
                self.owe(ident, Debt::Burial { at_once }, &format!("{ident} is gone, and what it had is not given back: {refusal}"));
                Ok(())
            }
        };
        settled.and(enforced).and(forgotten)
    }
}
