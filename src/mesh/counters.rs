//! What the mesh plane dropped, refused and repaired, by name.

crate::counters! {
    /// Counters of the mesh plane.
    pub struct MeshCounters {
        /// Control datagrams received.
        datagrams_in,
        /// Control datagrams sent.
        datagrams_out,
        /// Datagrams that start with no header of ours.
        garbage,
        /// Datagrams of another wire version.
        other_version,
        /// Datagrams shorter than their kind allows, or with a record cut short.
        truncated,
        /// Datagrams of a kind that does not belong on the control port.
        misplaced,
        /// Sealed datagrams whose counter was seen before.
        replayed,
        /// Sealed datagrams whose tag does not match.
        forged,
        /// Sealed datagrams on a key past its end.
        expired,
        /// Sealed datagrams for a session that does not exist.
        unknown_session,
        /// Handshakes that carry this router's own name as their source.
        reflected,
        /// Datagrams for another router that may not be relayed.
        not_ours,
        /// Control datagrams relayed for others.
        relayed,
        /// Control datagrams for others dropped: no live link they came from, no route, or hop limit used up.
        relay_dropped,
        /// Control datagrams for others dropped because this router passes nothing on (--allow-forwarding=no).
        relay_forbidden,
        /// Control datagrams for others dropped because their link had used up its share.
        relay_over_budget,
        /// Relayed datagrams of this router dropped for want of a route.
        no_route,
        /// Handshakes started.
        handshakes_started,
        /// Handshakes that ended with a session.
        handshakes_completed,
        /// Handshakes refused by this router.
        handshakes_refused,
        /// Handshakes given up without an answer.
        handshakes_timed_out,
        /// Handshakes with routers that only gossip told of, given up because this host has no way there.
        handshakes_without_way,
        /// Handshake messages that made no sense.
        handshakes_malformed,
        /// First handshake messages dropped because their stamp is not newer than the last.
        stale_stamps,
        /// First handshake messages dropped or put off under load.
        handshakes_limited,
        /// Retry tokens sent to initiators under load.
        retries_sent,
        /// Rejects received that belong to no handshake of ours, or came too often.
        rejects_ignored,
        /// Sessions replaced by newer ones.
        rekeys,
        /// Links that came up.
        links_up,
        /// Links that went down.
        links_down,
        /// Links and direct paths declared dead because nothing was heard.
        paths_dead,
        /// For how many milliseconds nothing had been heard of these, all together.
        paths_dead_after_ms,
        /// Links and direct paths given up because the kernel said that the interface is down.
        paths_lost_with_interface,
        /// Links and direct paths that others stood in for because the kernel refused to send, or the peer named the link no more.
        paths_doubted,
        /// ICMP errors that quote a datagram of ours to a peer, which is asked whether it is alive, or whether large datagrams still arrive.
        rebuffs_heeded,
        /// ICMP errors about a peer's address that quote nothing we sent there, or come too soon after another.
        rebuffs_ignored,
        /// Ways of frames to a peer that changed: direct, another next hop, none.
        path_changes,
        /// Bytes of gossip sent to neighbours.
        gossip_bytes_out,
        /// Bytes of gossip received from neighbours.
        gossip_bytes_in,
        /// Addresses of peers that changed after a sealed challenge and response.
        addresses_moved,
        /// Control records that made no sense where they came.
        records_ignored,
        /// Gossip messages or records refused.
        gossip_refused,
        /// Messages of parts of the program above the mesh that were too long, or found no session in time.
        app_messages_dropped,
        /// Messages for parts of the program above the mesh dropped because their sender had used up its share.
        app_messages_over_budget,
        /// The same dropped because half of a queue to such a part was full of them.
        app_messages_unheard,
        /// Records of parts of the program above the mesh that are more or longer than may be said.
        app_records_dropped,
        /// Revocations heard that no administrator of ours has signed, or that are too many.
        revocations_refused,
        /// MACs that moved between routers.
        mac_moves,
        /// MACs frozen because several hosts have them or they kept moving.
        macs_frozen,
        /// Times that an address was said to be at another MAC than was known: it is not answered for within the next minute.
        bindings_contradicted,
        /// Addresses on this host's bridge not announced because there are more than one router may announce.
        bindings_over_limit,
        /// Times that this router told others of which multicast groups it has members.
        groups_told,
        /// New probes for loops seen on this host's bridge: it is joined to another router's, or to itself.
        probes_heard,
        /// Probes for loops that were heard before, are not of a router that is reached, or are forged.
        probes_ignored,
        /// Loops found: times a bridge was found to be joined to this host's outside the mesh.
        loops_found,
        /// Heartbeats received through the device of the fast datapath.
        fastdp_beats,
        /// Heartbeats there that are not from a peer which agreed to the fast datapath, or not for this router.
        fastdp_strange_beats,
        /// Peers whose frames went over to the fast datapath.
        fastdp_taken_up,
        /// Peers whose frames came back from the fast datapath to the router.
        fastdp_fell_back,
    }
}
