//! Whether the ranges that addresses are given from are free on this host.

use ipnet::IpNet;

use super::super::RunConfig;
use super::complain;
use crate::host::routes::{self, Overlap};
use crate::store::db::{Db, Table};
use crate::wire::ipam::Range;

/// Refuses the default range where the host already has a route into it, and warns of one that somebody chose. A mesh that gives addresses
/// already is not left for a route that came later: its containers run.
pub async fn check(config: &RunConfig, db: &Db) -> anyhow::Result<()> {
    let Some(book) = &config.ipam else { return Ok(()) };
    let mut ranges: Vec<IpNet> = book.ranges.iter().filter_map(Range::network).collect();
    ranges.extend(&book.subnets);
    let found = match crate::host::connect() {
        Ok(handle) => routes::overlaps(&handle, &config.bridge, &ranges).await,
        Err(error) => Err(error),
    };
    let found = found.unwrap_or_else(|error| {
        complain("whether the host has routes into --ipalloc-range is not known", &error);
        Vec::new()
    });
    let in_use = config.range_given || !db.all(Table::Ipam).await.unwrap_or_default().is_empty();
    for Overlap { range, route, device } in found {
        let meets = format!("{range} of --ipalloc-range overlaps this host's route to {route} by device {device}");
        let why = "containers and what is there would hide each other";
        if !in_use && book.ranges.iter().any(|known| known.network() == Some(range)) {
            anyhow::bail!(
                "{meets}: {why}; give another range, the same on all routers, or say --ipalloc-range {range} if it is to be this one all the same"
            );
        }
        tracing::warn!("{meets}: {why}; remove the route, or give another range on all routers");
    }
    Ok(())
}
