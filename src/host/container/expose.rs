//! An address of the host on its bridge.

use ipnet::IpNet;
use rtnetlink::Handle;

use super::super::{HostError, link};
use super::announce::announce;
use super::attach::{self, BridgeEnd};
use super::{found, knobs};

/// Gives the bridge an address; answers with true where it had not. Idempotent.
pub async fn expose(host: &Handle, bridge: &BridgeEnd, address: IpNet) -> Result<bool, HostError> {
    let attempted = format!("expose this host as {address}");
    let found = link::by_index(host, bridge.index).await?.filter(|found| found.name == bridge.name);
    let found = found.ok_or_else(|| HostError::refused(&attempted, format!("bridge {} is gone; try again", bridge.name)))?;
    knobs::exposed(&bridge.name, address.addr().is_ipv6());
    if found::addresses_on(host, bridge.index).await?.contains(&address) {
        return Ok(false);
    }
    attach::add(host, bridge.index, address, &attempted).await?;
    // Out of the bridge it goes to all its ports.
    if let Err(error) = announce(bridge.index, found.mac, &[address.addr()]) {
        tracing::debug!("could not announce {address}: {error}");
    }
    Ok(true)
}

/// Takes an address from the bridge; answers with false where it had none such. Idempotent.
pub async fn hide(host: &Handle, bridge: &BridgeEnd, address: IpNet) -> Result<bool, HostError> {
    let has = found::addresses_on(host, bridge.index).await?;
    if !has.contains(&address) {
        return Ok(false);
    }
    let stay: Vec<IpNet> = has.into_iter().filter(|other| *other != address).collect();
    attach::withdraw(host, bridge.index, &[address], &stay).await?;
    Ok(true)
}
