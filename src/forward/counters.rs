//! Why packets were dropped, and what else a packet thread counts.

crate::counters! {
    /// Counters of the packet plane. Every drop has one.
    pub struct PacketCounters {
        /// Frames shorter than an Ethernet header.
        drop_runt,
        /// Frames whose source MAC is a group address.
        drop_bad_source,
        /// Frames to the link-local group 01:80:C2:00:00:0x, which bridges never pass on (spanning tree among them).
        drop_link_local_group,
        /// ARP about the name server's address (169.254.53.53), which is each host's own and stays on its bridge.
        drop_service_address,
        /// Floods neither taken from the bridge nor given to it, because it is joined to another router's outside the mesh.
        drop_loop_flood,
        /// Frames that came back from the mesh over a bridge that is joined to another router's.
        drop_loop_echo,
        /// Questions of another router for members of multicast groups, which came over a bridge that is joined to its own.
        drop_question,
        /// Probes for loops that came over the mesh, or more than this router looks at.
        drop_loop_probe,
        /// Floods of a station on this host's bridge that floods more than it may (`--flood-limit`).
        drop_flood_limit,
        /// Floods beyond what all stations on this host's bridge may together, or all whose MACs were not heard before (as made-up ones).
        drop_flood_limit_all,
        /// Frames from the mesh that come from a MAC which is on this host's bridge as well, and frozen there: several hosts have it.
        drop_frozen_mac,
        /// Multicast frames from the mesh not given to the bridge, because nobody there is a member of their group.
        drop_no_member,
        /// Reports of multicast groups from the mesh not given to the bridge, because no multicast router is there.
        drop_no_multicast_router,
        /// Frames from the bridge for a MAC on the same bridge.
        drop_local,
        /// Frames whose vnet header contradicts their content.
        drop_bad_offload,
        /// Frames from the bridge dropped because too much waited to be sent, the longest queue's first.
        drop_queue_full,
        /// Frames from the bridge dropped to tell a sender that it keeps a queue standing (CoDel).
        drop_queue_delay,
        /// Frames for a peer to which no route leads now.
        drop_no_route,
        /// Frames that found the queue for their peer's session full.
        drop_pending_full,
        /// Frames that waited too long for a session with their peer.
        drop_pending_expired,
        /// Frames whose session had used up its key, by count or by age.
        drop_key_exhausted,
        /// Datagrams that found the outbox full.
        drop_outbox_full,
        /// Frames that not even fragments can carry.
        drop_unsendable,
        /// Frames too big for the path, answered with "too big".
        drop_too_big_answered,
        /// Frames too big for the path, not answered because there were too many.
        drop_too_big_silent,
        /// Datagrams that are not ours, or of another wire version.
        drop_bad_header,
        /// Direct datagrams addressed to another router.
        drop_misdirected,
        /// Datagrams for a session that this router does not have.
        drop_unknown_session,
        /// Datagrams too short to be sealed.
        drop_short,
        /// Datagrams of a lane that their session does not have.
        drop_lane,
        /// Datagrams seen before, or too old.
        drop_replay,
        /// Datagrams that are not authentic.
        drop_forged,
        /// Datagrams of a session that has ended.
        drop_expired,
        /// Unsealed datagrams that did not come over a proven path.
        drop_plain,
        /// Bundles with a malformed frame.
        drop_bad_bundle,
        /// Frames from a peer that contradict their own header.
        drop_bad_frame,
        /// Frames whose fragments did not all arrive, or contradicted each other.
        drop_fragments,
        /// Floods with a malformed header.
        drop_bad_flood,
        /// Floods that came back to their origin.
        drop_flood_own,
        /// Floods whose origin is no known member of the mesh, or of another incarnation of it than is known.
        drop_flood_stranger,
        /// Floods seen before.
        drop_flood_duplicate,
        /// Floods of more origins than the table of floods has room for.
        drop_flood_no_room,
        /// Floods not passed on because their hops were used up.
        drop_flood_hops,
        /// Floods not passed on because the next link takes smaller datagrams only.
        drop_flood_too_big,
        /// Datagrams to be relayed that did not come from a neighbour.
        drop_relay_stranger,
        /// Datagrams to be relayed to a router that is not reached from here.
        drop_relay_no_route,
        /// Datagrams to be relayed whose hops were used up.
        drop_relay_hops,
        /// Datagrams to be relayed that exceeded what one neighbour may have passed on (`--relay-limit`).
        drop_relay_budget,
        /// Datagrams and floods not passed on because this router passes nothing on (--allow-forwarding=no).
        drop_relay_forbidden,
        /// Datagrams to be relayed over a link that takes smaller datagrams only.
        drop_relay_too_big,
        /// Punts to the mesh plane that found no room.
        drop_punt,
        /// Frames flooded because nobody knows their destination.
        flooded_unknown_unicast,
        /// Broadcast and multicast frames flooded.
        flooded_multicast,
        /// TCP acknowledgements left out, because the next one of their flow was there already and says as much.
        acks_superseded,
        /// Multicast frames from the bridge sent on only where hosts with members of their group are.
        multicast_to_members,
        /// Multicast frames from the bridge not sent on, because their group has members on this host only.
        multicast_kept_home,
        /// Reports of multicast groups on the bridge passed over because there were too many at once: all groups are taken for wanted.
        memberships_over_rate,
        /// ARP requests and neighbour solicitations answered for a container of another host, and so not flooded.
        arp_answered,
        /// The same, flooded because no router has seen the address.
        arp_flooded_unknown,
        /// The same, flooded because the address is on this host's own bridge.
        arp_flooded_here,
        /// The same, flooded because several have the address, or another had it within the last minute, or bridges are joined.
        arp_flooded_disputed,
        /// The same, flooded because the router that has seen the address is not reached, or has lost its MAC.
        arp_flooded_unreachable,
        /// Address resolution that is no such question and flooded: whether an address is free, and news of one.
        arp_flooded_no_question,
        /// Sightings of addresses passed over because there were too many at once.
        sightings_over_rate,
        /// Frames marked "congestion experienced" to tell a sender that it keeps a queue standing (CoDel).
        marked_congestion,
        /// Frames sent in fragments.
        fragmented,
        /// Datagrams relayed.
        relayed,
    }
}
