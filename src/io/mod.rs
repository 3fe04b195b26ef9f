//! The operating system's packet I/O: the TAP, the UDP sockets, the clock and the randomness.
//!
//! Everything here is called by the event loops of the packet threads and of the mesh thread. Nothing in the steady state allocates:
//! buffers are made when a thread starts, and the kernel's structs live on the stack of a call.
//!
//! * [`tap`]: one queue of a TAP device, with super frames (`IFF_VNET_HDR`) both ways.
//! * [`udp`]: the sockets of one port, steered by the kernel: control datagrams to the mesh thread, data to the packet threads.
//! * [`mailbox`]: a bounded queue into an event loop.
//! * [`packet_thread`], [`mesh_thread`]: the event loops; [`thread_load`] says what each packet thread has done.
//! * [`busy_poll`]: how long a packet thread looks for events before it sleeps.
//! * [`offload`]: which kernel offloads are wanted, and which are in use.
//! * [`clock`], [`entropy`]: the only places that read time and randomness.
//! * [`sys`]: system calls, the only unsafe code of the crate.

pub mod beats;
pub mod busy_poll;
pub mod ciphers;
pub mod clock;
pub mod entropy;
pub mod mailbox;
pub mod mesh_thread;
pub mod offload;
pub mod packet_thread;
pub mod sys;
pub mod tap;
#[cfg(test)]
mod testing;
pub mod thread_load;
pub mod udp;
