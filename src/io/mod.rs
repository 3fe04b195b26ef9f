//! The operating system's packet I/O: the TAP, the UDP sockets, the clock and the randomness.
//!
//! Everything here is called by the event loops of the packet threads and of the mesh thread. Nothing in the steady state allocates:
//! buffers are made when a thread starts, and the kernel's structs live on the stack of a call.
//!
//! * [`tap`]: one queue of a TAP device, with super frames (`IFF_VNET_HDR`) both ways.
//! * [`udp`]: the sockets of one port, steered by the kernel: control datagrams to the mesh thread, data to the packet threads.
//! * [`icmp`]: what others say of datagrams that did not arrive.
//! * [`tcp`]: the thread that carries datagrams by TCP where no UDP gets through.
//! * [`mailbox`]: a bounded queue into an event loop.
//! * [`packet_thread`], [`mesh_thread`]: the event loops; [`thread_load`] says what each packet thread has done.
//! * [`busy_poll`]: how long a packet thread looks for events before it sleeps.
//! * [`offload`]: which kernel offloads are wanted, and which are in use.
//! * [`clock`], [`entropy`]: the only places that read time and randomness.
//! * [`sys`]: system calls, the only unsafe code of the crate.
//!
//! # Needless acknowledgements, and batches of 128 KiB
//!
//! One stream of 2 s, each way of doing it in turn, on a 2-core AMD EPYC (Zen 3) whose kernel VXLAN did 7.7 to 9.5 Gbit/s then; three rounds.
//!
//! | | Gbit/s | CPU of the routers, ns/B | calls that move frames per MB |
//! | --- | --- | --- | --- |
//! | `--ack-filter off`, batches of 40 KiB | 3.33, 3.40, 3.56 | 3.52, 3.46, 3.37 | 120, 115, 125 |
//! | the last acknowledgement of several alone, 40 KiB | 3.74, 3.93, 4.15 | 3.04, 2.95, 2.83 | 91, 102, 92 |
//! | the same, 128 KiB | 3.53, 4.46, 4.59 | 3.19, 2.59, 2.51 | 83, 76, 77 |
//!
//! On the same machine in another hour, with batches of 128 KiB, four rounds in turn had medians of 3.58 Gbit/s, 3.12 ns/B and 89 calls with the
//! filter off, and of 3.98, 2.86 and 79 with it on.
//!
//! The sender's router writes 2 acknowledgements per MB to its TAP instead of 17, and each of those passed a bridge and TCP. What a ping-pong beside
//! it takes did not change beyond the noise. On a wire of 1500-byte datagrams it is 5 % at the median of three rounds (318 calls per MB instead
//! of 396), and with one percent of loss nothing that shows (350 instead of 370). Super frames no longer than one run (`gso_max_size` of the
//! containers' interfaces) gained nothing.
//!
//! # What was tried and is not kept
//!
//! Each was tried in the router and took turns with it as it is: one TCP stream of 0.9 s between containers of two hosts, AES-256-GCM, on two cores
//! of an AMD EPYC (Linux 6.18) that play both hosts; medians of 16 to 20 streams, in brackets the middle half.
//!
//! | | Gbit/s | CPU of the routers, ns/B | calls that move frames per MB | ping-pong p99 beside it, µs |
//! | --- | --- | --- | --- | --- |
//! | as it is | 7.25 (6.72 to 7.59) | 1.72 (1.63 to 1.74) | 99 | 1845 (1654 to 1934) |
//! | `IFF_NAPI` | 7.10 (7.02 to 7.53) | 1.73 (1.63 to 1.77) | 105 | 2034 (1736 to 2197) |
//! | `MSG_ZEROCOPY` | 5.31 (5.18 to 6.32) | 2.19 (2.13 to 2.22) | 99 | 2271 (2115 to 2427) |
//! | as it is, another half hour | 7.49 (7.19 to 7.63) | 1.67 (1.56 to 1.73) | 107 | 1708 (1532 to 2038) |
//! | batches of 64 KiB instead of 40 | 7.22 (6.67 to 7.62) | 1.69 (1.58 to 1.87) | 100 | 1962 (1747 to 2279) |
//! | batches of 128 KiB | 7.56 (7.29 to 7.78) | 1.64 (1.54 to 1.69) | 85 | 1968 (1731 to 2040) |
//! | never a backlog in fair queues | 7.55 (7.43 to 7.71) | 1.65 (1.56 to 1.70) | 95 | 2127 (1934 to 2466) |
//!
//! * `IFF_NAPI` joins what is written to the TAP, and that is joined already: it changes nothing. `IFF_NAPI_FRAGS` takes at most 17 parts of a page
//!   each, and a re-joined super frame has up to 48.
//! * `MSG_ZEROCOPY` costs a quarter: pages are pinned and completions read for each send, and a virtual link copies the bytes all the same.
//! * Larger batches saved calls and nothing else, while each super frame was acknowledged by a frame of its own. Now they are 128 KiB: see above.
//! * The fair queues cost this stream nothing that shows.
//! * io_uring was measured call by call (a loop of 16 TAP calls or 4 UDP ones, on one core of a 2-core Xeon, ordinary calls and a ring taking turns fifteen
//!   times, medians of four such runs; CPU of a ring to that of calls): TAP writes of 60,000 bytes 0.96 to 1.00, of 64 bytes 0.88 to 1.00; a send and a read
//!   of the TAP 1.01 to 1.09 and 0.79 to 1.02; `UDP_SEGMENT` sends 1.06 to 1.10 of `sendmmsg`, single datagrams 1.11 to 1.21; receiving 0.98 to 1.06 of
//!   `recvmmsg`. So it was not built in: it saves entries into the kernel, not the work inside, and the calls for UDP are batched already. In a
//!   profile of that stream (`perf`, cpu-clock, one second) entering and leaving the kernel is 1.3 % of the routers' time; copies in the
//!   kernel are 18 %, AES-256-GCM a quarter, and the write to the TAP, in which the bridge, netfilter and TCP's receiver run, another quarter.
//! * AF_XDP and packet rings on a port of the bridge were not built, since what they spare is not what costs. AF_XDP hands over what a driver would
//!   send, one packet at a time and without the header that describes super frames: each of the 46 packets of one would pass by itself, and a
//!   prototype without super frames on the bridge's side did 1.3 Gbit/s where one with them did 5.4. A ring of `PACKET_MMAP` can carry that header,
//!   but frames are copied into it as `read` copies them, and the calls that it spares are the 1.3 % above.
//! * vhost-net could not be tried, as this machine has no `/dev/vhost-net`; nor pinning, as with two cores for two hosts the bench confines each
//!   router to one.

pub mod beats;
pub mod busy_poll;
pub mod ciphers;
pub mod clock;
pub mod entropy;
pub mod icmp;
pub mod mailbox;
pub mod mesh_thread;
pub mod offload;
pub mod packet_thread;
pub mod sys;
pub mod tap;
pub mod tcp;
#[cfg(test)]
mod testing;
pub mod thread_load;
pub mod udp;
