//! What is in use on this host, as the kernel has it: said to who gives addresses out before anything else is, so that also where the state
//! directory was lost no new container gets the address of a running one.

use ipnet::IpNet;

use super::super::complain;
use super::desk::Desk;
use crate::host::HostError;
use crate::host::container::found;

impl Desk {
    /// Says it; false where that has to be tried again.
    pub(super) async fn reserve(&self) -> bool {
        let Some(book) = self.books.addresses.as_deref() else { return true };
        let (held, host) = match self.in_use().await {
            Ok(found) => found,
            Err(error) => {
                complain("cannot see which addresses are in use here, and tries again", &error);
                return false;
            }
        };
        let said = book.reserve(held, host).await;
        said.inspect_err(|refusal| tracing::warn!("what is in use here could not be reserved, which is tried again: {refusal}")).is_ok()
    }

    /// The addresses of the containers and of the exposed host, remembered and found, and all of the bridge.
    async fn in_use(&self) -> Result<(Vec<(String, IpNet)>, Vec<IpNet>), HostError> {
        let (bridge, kernel) = (self.bridge(), self.kernel().await);
        let mut held: Vec<(String, IpNet)> = Vec::new();
        for (ident, known) in self.known() {
            held.extend(known.record.addresses.iter().map(|address| (ident.clone(), *address)));
        }
        for end in found::ends(&kernel.host, &bridge.name).await? {
            let addresses = found::look(&kernel.strict, &end).await?.map(|attachment| attachment.addresses).unwrap_or_default();
            held.extend(addresses.into_iter().map(|address| (end.ident.clone(), address)));
        }
        Ok((held, found::addresses_on(&kernel.host, bridge.index).await?))
    }
}
