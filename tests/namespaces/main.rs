//! Real routers, containers and traffic, through the built binary, in network namespaces of this machine. They need root; those
//! that measure time have the machine to themselves, the others run side by side. Without root they are skipped aloud.

#[path = "../common/mod.rs"]
mod common;
mod crowd;
mod engine;
mod flow;
mod proxy;
mod scene;
mod station;

mod addresses;
mod attach;
mod capture;
mod chaos;
mod dns;
mod docker;
mod expose;
mod fastdp;
mod firewall;
mod frames;
mod host;
mod hostile;
mod ipam;
mod keys;
mod killed;
mod line;
mod loops;
mod macs;
mod many;
mod multicast;
mod nat;
mod offloads;
mod overload;
mod pair;
mod passwords;
mod recovery;
mod refusals;
mod resolution;
mod resolvers;
mod restart;
mod revoke;
mod runtime;
mod service;
mod sizes;
mod surroundings;
mod tcp;
mod threads;
mod together;
mod underlay;
mod undone;
