//! The host's side of the fast datapath: a VXLAN device per family of underlays on the bridge beside the TAP, which take unicast frames to trusted peers.
//!
//! * [`device`]: the VXLAN devices as ports of the bridge that learn and flood nothing. They and the TAP are isolated from each other, so that
//!   nothing loops; none is learned behind, since floods of all peers come in by the TAP.
//! * [`entries`]: where every remote MAC is, as `extern_learn` entries of the bridge's table (behind a VXLAN device or behind the TAP) and as
//!   entries of the VXLAN devices' own (to which address). A container that moves here takes its bridge entry over with its first frame.
//! * [`gate`]: the firewall's table that lets VXLAN of the peers which agreed in, and no other; [`vanished`](super::vanished) notices when it is
//!   taken away.
//!
//! What belongs where is decided by [`crate::mesh::fastdp`].

pub mod device;
pub mod entries;
pub mod gate;
