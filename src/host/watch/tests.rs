//! What single notifications mean; the whole is tested with the bridge.

use super::*;

fn watch() -> Watch {
    let (_, messages) = futures::channel::mpsc::unbounded();
    let bridge = Some((7, "weave".to_string()));
    Watch { messages, pending: VecDeque::new(), bridge, bridge_up: true, mtu: 1420, tap: Some(8) }
}

fn link(index: u32, name: &str, master: Option<u32>) -> Link {
    Link { index, name: name.into(), master, up: true, mtu: 1420, ..Link::default() }
}

fn events(tell: impl Fn(&mut Watch)) -> Vec<HostEvent> {
    let mut watch = watch();
    tell(&mut watch);
    watch.pending.into()
}

#[test]
fn notifications_become_events() {
    assert_eq!(events(|w| w.link_is(&link(7, "weave", None))), []);
    assert_eq!(events(|w| w.link_is(&link(7, "renamed", None))), [HostEvent::BridgeGone]);
    assert_eq!(events(|w| w.link_is(&link(8, "tap", Some(7)))), []);
    assert_eq!(events(|w| w.link_is(&link(8, "tap", Some(9)))), [HostEvent::TapDetached]);
    assert_eq!(events(|w| w.link_is(&link(9, "veth", Some(7)))), [HostEvent::PortsChanged]);
    assert_eq!(events(|w| w.link_gone(&link(8, "tap", None))), [HostEvent::TapGone]);
    assert_eq!(events(|w| w.port_left(&link(9, "veth", Some(7)))), [HostEvent::PortsChanged]);
    assert_eq!(events(|w| w.read(NetlinkPayload::Overrun(Vec::new()))), [HostEvent::Missed]);
    let down = Link { up: false, mtu: 1000, ..link(7, "weave", None) };
    let twice = |w: &mut Watch| {
        w.link_is(&down);
        w.link_is(&down);
    };
    assert_eq!(events(twice), [HostEvent::BridgeDown, HostEvent::MtuChanged(1000)]);
}

#[test]
fn nothing_is_said_before_a_bridge_is_expected() {
    let mut watch = Watch { bridge: None, tap: None, ..watch() };
    watch.link_is(&link(7, "weave", None));
    assert!(watch.pending.is_empty());
}
