//! Which addresses are meant, and their way back to those who give them out.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use ipnet::IpNet;

use super::desk::Desk;
use super::record::Record;
use crate::api::Denied;
use crate::host::container::AddressSpec;

/// An [`AddressSpec`] when it is known what the default is.
enum Meant {
    /// This very address.
    Address(IpNet),
    /// One of this subnet, or all.
    In(IpNet),
}

/// What is to be given back as soon as that is possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Debt {
    /// Addresses that a container, or the host, has no more.
    Addresses(Vec<IpNet>),
    /// All that a container had which is gone.
    Burial {
        /// Its addresses are not kept for a while.
        at_once: bool,
    },
}

impl Desk {
    /// The addresses that are meant; those that `ident` did not hold before are noted in `gained`, also where a later one fails.
    pub(super) async fn resolve(
        &self,
        ident: &str,
        specs: &[AddressSpec],
        held: &[IpNet],
        gained: &mut Vec<IpNet>,
    ) -> Result<Vec<IpNet>, Denied> {
        self.announce_newcomer(ident).await?;
        let mut had = held.to_vec();
        if let Some(book) = self.books.addresses.as_deref() {
            had.extend(book.lookup(ident).await?);
        }
        let mut addresses: Vec<IpNet> = Vec::new();
        for spec in self.meant(specs)? {
            let address = match (spec, self.books.addresses.as_deref()) {
                (Meant::Address(address), Some(book)) => book.claim(ident, address).await.map(|()| address)?,
                (Meant::Address(address), None) => address,
                (Meant::In(subnet), _) => self.books.addresses()?.allocate(ident, subnet).await?,
            };
            if !had.contains(&address) {
                gained.push(address);
            }
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(addresses)
    }

    /// The default subnet is one of each family; nothing said is the default subnet.
    fn meant(&self, specs: &[AddressSpec]) -> Result<Vec<Meant>, Denied> {
        let specs = if specs.is_empty() { &[AddressSpec::Default][..] } else { specs };
        let mut all = Vec::new();
        for spec in specs {
            match spec {
                AddressSpec::Fixed(address) => all.push(Meant::Address(*address)),
                AddressSpec::Subnet(subnet) => all.push(Meant::In(*subnet)),
                AddressSpec::Default => {
                    self.books.addresses()?;
                    all.extend(self.settings.subnets.iter().copied().map(Meant::In));
                }
            }
        }
        Ok(all)
    }

    /// Those of `has` that are meant. It needs nobody's consent.
    pub(super) fn select(&self, specs: &[AddressSpec], all: bool, has: &[IpNet]) -> Result<Vec<IpNet>, Denied> {
        if all {
            return Ok(has.to_vec());
        }
        let mut gone = Vec::new();
        for spec in self.meant(specs)? {
            match spec {
                Meant::Address(address) => gone.extend(has.contains(&address).then_some(address)),
                Meant::In(subnet) => gone.extend(has.iter().filter(|address| address.trunc() == subnet)),
            }
        }
        gone.sort_unstable();
        gone.dedup();
        Ok(gone)
    }

    /// Gives addresses back, or `all` of them, and then remembers what is `left`. What is not free is remembered as well, and tried again: that it
    /// cannot be given back now is no reason not to detach.
    pub(super) async fn settle(&self, ident: &str, left: Option<Record>, gone: &[IpNet], all: bool) -> Result<(), Denied> {
        let mut record = left.clone().unwrap_or_default();
        record.leaving.extend(gone.iter().filter(|address| !record.leaving.contains(address)).copied().collect::<Vec<_>>());
        let outcome = self.free(ident, &record.leaving, all).await;
        if let Some((_, refusal)) = outcome.first() {
            let gone: Vec<String> = outcome.iter().map(|(address, _)| address.to_string()).collect();
            self.owe(
                ident,
                Debt::Addresses(outcome.iter().map(|(address, _)| *address).collect()),
                &format!("{} of {ident} cannot be given back: {refusal}", gone.join(", ")),
            );
        } else {
            self.debts().remove(ident);
        }
        record.leaving = outcome.into_iter().map(|(address, _)| address).collect();
        self.lock().get_mut(ident).iter_mut().for_each(|known| known.record.leaving.clone_from(&record.leaving));
        let keep = left.is_some() || !record.leaving.is_empty();
        self.remember(ident, keep.then_some(&record)).await
    }

    /// Gives addresses back, or `all` that the container has; answers with those that are not free, and why.
    async fn free(&self, ident: &str, addresses: &[IpNet], all: bool) -> Vec<(IpNet, Denied)> {
        let Some(book) = self.books.addresses.as_deref() else { return Vec::new() };
        if all {
            let refused = book.free(ident, None).await.err();
            return refused.map_or_else(Vec::new, |refusal| addresses.iter().map(|address| (*address, refusal.clone())).collect());
        }
        let freed = addresses
            .iter()
            .map(|address| async move { book.free(ident, Some(address.addr())).await.err().map(|refusal| (*address, refusal)) });
        futures::future::join_all(freed).await.into_iter().flatten().collect()
    }

    pub(super) fn debts(&self) -> MutexGuard<'_, BTreeMap<String, Debt>> {
        self.debts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what is to be tried again, and says so the first time.
    pub(super) fn owe(&self, ident: &str, debt: Debt, why: &str) {
        let before = self.debts().insert(ident.to_owned(), debt.clone());
        if before.as_ref() != Some(&debt) {
            tracing::warn!("{why}; this is tried again");
        }
    }

    /// Tries again what could not be given back.
    pub fn pay(self: &Arc<Self>) {
        let idents: Vec<String> = self.debts().keys().filter(|ident| !self.is_busy(ident)).cloned().collect();
        for ident in idents {
            let desk = Arc::clone(self);
            tokio::spawn(async move {
                let _turn = desk.turn(&ident).await;
                let Some(debt) = desk.debts().get(&ident).cloned() else { return };
                let known = desk.lock().get(&ident).cloned();
                let paid = match (known, debt) {
                    (Some(known), _) => desk.settle(&ident, Some(known.record), &[], false).await,
                    (None, Debt::Addresses(addresses)) => desk.settle(&ident, None, &addresses, false).await,
                    (None, Debt::Burial { at_once }) => desk.bury(&ident, at_once).await,
                };
                if let Err(refusal) = paid {
                    tracing::debug!("{ident}: {refusal}");
                }
            });
        }
    }
}

#[cfg(test)]
mod tests;
