//! The start of a router: first what can be claimed without touching the host, then the host, then the threads and the servers.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::RunConfig;
use super::apps::{AppSink, Apps};
use super::containers::Sockets;
use super::fastdp::{Fastdp, Switchboard};
use super::keeper::Keeper;
use super::names::Names;
use super::network::Network;
use super::parts::{Ground, Parts};
use super::paths::{self, Tracers};
use super::planes::{Foundation, Planes};
use super::signals::Signals;
use super::status::StatusSource;
use super::{EVENTS, Router, STOP_PATIENCE, announce, changes, ranges, threads};
use crate::api::listen::Listener;
use crate::api::{self, Handle, Request};
use crate::host::fastdp::device::Wanted;
use crate::io::clock::Clock;
use crate::mesh::command::Target;
use crate::store::StateDir;
use crate::store::db::Db;

/// What a router has before anything on the host is changed.
struct Claims {
    signals: Signals,
    clock: Clock,
    store: StateDir,
    remembered: Vec<Target>,
    db: Db,
    threads: usize,
    foundation: Foundation,
    api: Listener,
    pages: Option<Listener>,
    /// What the fast datapath needs, where it is asked for.
    fast: Option<(rtnetlink::Handle, Wanted)>,
    sockets: Sockets,
}

impl Claims {
    async fn make(config: &RunConfig) -> anyhow::Result<Claims> {
        // Installed first: a stop that comes during the start must not kill us half way.
        let signals = Signals::install()?;
        let clock = Clock::start();
        let store = StateDir::open(&config.state_dir)?;
        let (remembered, warning) = store.peers()?;
        if let Some(warning) = warning {
            tracing::warn!("{warning}");
        }
        let db = Db::open(store.path())?;
        ranges::check(config, &db).await?;
        let threads = threads::choose(config).await?;
        let foundation = Foundation::lay(config, &store, threads, clock)?;
        let api = api::listen::api(&config.api).await?;
        let pages = pages(config.status_addr).await?;
        let fast = match &config.fastdp {
            Some(fastdp) => Some((crate::host::connect()?, Wanted::new(fastdp.port, &config.network, foundation.name()))),
            None => None,
        };
        let sockets = Sockets::open()?;
        Ok(Claims { signals, clock, store, remembered, db, threads, foundation, api, pages, fast, sockets })
    }
}

async fn pages(address: Option<SocketAddr>) -> anyhow::Result<Option<Listener>> {
    match address {
        Some(address) => Ok(Some(api::listen::status(address).await?)),
        None => Ok(None),
    }
}

/// Starts the API, and the pages that change nothing; what they ask of the router.
fn serve(api: Listener, pages: Option<Listener>, routes: axum::Router) -> (Vec<JoinHandle<()>>, mpsc::Receiver<Request>) {
    let (handle, requests) = Handle::new();
    let mut servers = vec![tokio::spawn(api::server::serve(api, api::server::api(handle.clone(), routes)))];
    servers.extend(pages.map(|pages| tokio::spawn(api::server::serve(pages, api::server::status(handle)))));
    (servers, requests)
}

impl Router {
    /// Claims everything in an order in which a failure leaves nothing behind: state, port, API sockets, then the bridge and the TAP.
    pub(super) async fn start(config: RunConfig) -> anyhow::Result<Router> {
        let Claims { signals, clock, store, remembered, db, threads, foundation, api, pages, fast, sockets } =
            Claims::make(&config).await?;
        let (name, identity, fib) = (foundation.name(), foundation.identity.clone(), Arc::clone(&foundation.fib));
        let (key, revoked, tcp_open) = (identity.public().key, store.revoked()?, Arc::clone(&foundation.counters.tcp_open));
        let (network, tap) = Network::build(&config, name, threads).await?;
        let (event_sink, events) = mpsc::channel(EVENTS);
        let mut status = StatusSource::new(&config, clock, &foundation);
        let switchboard = Arc::new(Switchboard::new());
        let app_counters = foundation.mesh_counters().0;
        let (app_sink, app_events, app_losses) = AppSink::new(Arc::clone(&app_counters));
        let planes = match Planes::start(foundation, &config, tap, (event_sink, Arc::clone(&switchboard), app_sink), clock) {
            Ok(planes) => planes,
            Err(error) => {
                network.release(Instant::now() + STOP_PATIENCE).await;
                return Err(error);
            }
        };
        let mut apps = Apps::new(app_losses, app_counters);
        let (firewall, doorbell) = Keeper::new(&config.bridge);
        let ground = Ground { name, identity, clock, db: &db, planes: &planes, sockets, bridge: network.bridge_end(), doorbell };
        let parts = Parts::start(&config, ground, &mut apps);
        (status.sections, status.counts) = (parts.sections, parts.counts);
        status.sections.push(paths::section(planes.mesh(), tcp_open));
        let tracers = Tracers::default();
        let routes = parts.routes.merge(api::trace::routes(tracers.ask(planes.mesh())));
        let (servers, requests) = serve(api, pages, routes);
        announce(&config, &status);
        let names = Names::new();
        let fastdp = match fast {
            Some((handle, wanted)) => Some(Fastdp::start(handle, wanted, &config.bridge, &network, &planes, switchboard, clock)),
            None => {
                network.sweep_fastdp().await;
                None
            }
        };
        Ok(Router {
            _watching: changes::watch(planes.mesh(), fib),
            config,
            store,
            remembered,
            key,
            revoked,
            network,
            firewall,
            planes,
            events,
            requests,
            status,
            servers,
            signals,
            names,
            fastdp,
            apps,
            app_events,
            dns: parts.dns,
            containers: parts.containers,
            tracers,
        })
    }
}
