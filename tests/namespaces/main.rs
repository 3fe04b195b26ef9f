//! Real routers, containers and traffic, through the built binary, in network namespaces of this machine. They need root and run one after
//! the other; without root they are skipped aloud.

#[path = "../common/mod.rs"]
mod common;
mod flow;
mod proxy;
mod scene;
mod station;

mod addresses;
mod attach;
mod capture;
mod dns;
mod expose;
mod fastdp;
mod firewall;
mod frames;
mod host;
mod hostile;
mod ipam;
mod line;
mod offloads;
mod overload;
mod pair;
mod passwords;
mod refusals;
mod restart;
mod runtime;
mod service;
mod sizes;
mod surroundings;
mod threads;
mod together;
mod underlay;
mod undone;
