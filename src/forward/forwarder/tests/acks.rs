//! Acknowledgements that come together: the last goes on, at both ends.

use super::*;

const NUMBER: usize = 14 + 20 + 8;

/// What acknowledges `number`.
fn ack(number: u8) -> (VnetHeader, Vec<u8>) {
    let recipe = Recipe { payload: 0, tcp_options: 0, ..Recipe::default() };
    let mut bytes = recipe.frame();
    bytes[NUMBER + 3] = number;
    (recipe.vnet(0), bytes)
}

fn superseded(mesh: &Mesh, n: usize) -> u64 {
    mesh.counters(n).acks_superseded.get()
}

#[test]
fn of_those_read_in_one_burst_the_last_is_sent() {
    let mut mesh = line(Wiring::default());
    let ([(vnet, first), (_, second), (_, third)], data) = ([1, 2, 3].map(ack), Recipe::default());
    mesh.send_burst(0, &vnet, &[&first, &second, &data.frame(), &third]);
    mesh.settle();
    assert_eq!(mesh.nodes[1].tap.take(), [second, data.frame(), third]);
    assert_eq!((superseded(&mesh, 0), superseded(&mesh, 1), drops(&mesh)), (1, 0, vec![]));
    // What has nothing behind it waits for nothing.
    let (vnet, fourth) = ack(4);
    mesh.send(0, &vnet, &fourth);
    assert_eq!(mesh.nodes[0].outbox.len(), 1);
}

#[test]
fn of_those_received_in_one_batch_the_last_is_written() {
    for sealed in [true, false] {
        let mut mesh = line(Wiring { plain: !sealed, ..Wiring::default() });
        let acks = [1, 2, 3].map(ack);
        for (vnet, bytes) in &acks {
            mesh.send(0, vnet, bytes);
        }
        mesh.settle();
        let [.., (vnet, last)] = acks;
        assert_eq!(mesh.nodes[1].tap.frames, [(vnet, last)]);
        assert_eq!((superseded(&mesh, 0), superseded(&mesh, 1), drops(&mesh)), (0, 2, vec![]));
    }
}

#[test]
fn those_of_different_senders_are_kept_apart() {
    let mut mesh = line(three());
    let (vnet, one) = ack(1);
    let recipe = Recipe { source: 3, payload: 0, tcp_options: 0, ..Recipe::default() };
    mesh.send_burst(0, &vnet, &[&one, &one]);
    mesh.send(2, &recipe.vnet(0), &recipe.frame());
    mesh.settle();
    let mut written = mesh.nodes[1].tap.take();
    written.sort();
    let mut expected = vec![one.clone(), one, recipe.frame()];
    expected.sort();
    assert_eq!(written, expected);
}

#[test]
fn switched_off_all_go() {
    let mut mesh = line(Wiring::default());
    for node in &mut mesh.nodes {
        let state = &mut node.forwarder.state;
        state.settings.ack_filter = false;
        state.rejoin = crate::forward::rejoin::Rejoin::new(false);
    }
    let [(vnet, first), (_, second)] = [1, 2].map(ack);
    mesh.send_burst(0, &vnet, &[&first, &second]);
    mesh.settle();
    assert_eq!(mesh.nodes[1].tap.take(), [first, second]);
}

#[test]
fn both_ends_note_what_somebody_may_wait_for_and_neither_streams_nor_their_acknowledgements() {
    let mut mesh = line(Wiring::default());
    let noted = |mesh: &Mesh| [0, 1].map(|n: usize| mesh.nodes[n].forwarder.small_at().is_some());
    let (vnet, bare) = ack(1);
    let stream = Recipe { payload: 20_000, ..Recipe::default() };
    for (vnet, bytes) in [(vnet, bare), (stream.vnet(1400), stream.frame())] {
        mesh.send(0, &vnet, &bytes);
        mesh.settle();
        assert_eq!(noted(&mesh), [false, false]);
    }
    let request = Recipe { payload: 100, ..Recipe::default() };
    mesh.send(0, &request.vnet(0), &request.frame());
    mesh.settle();
    assert_eq!(noted(&mesh), [true, true]);
    assert_eq!(drops(&mesh), []);
}

#[test]
fn a_relay_notes_them_by_their_size() {
    let mut mesh = line(three());
    let noted = |mesh: &Mesh| mesh.nodes[1].forwarder.small_at().is_some();
    let (bare, request) = (Recipe { payload: 0, ..Recipe::default() }, Recipe { payload: 100, ..Recipe::default() });
    for (recipe, expected) in [(bare, false), (request, true)] {
        let recipe = Recipe { destination: 3, ..recipe };
        mesh.send(0, &recipe.vnet(0), &recipe.frame());
        mesh.settle();
        assert_eq!((mesh.nodes[2].tap.take().len(), noted(&mesh)), (1, expected));
    }
    assert_eq!(drops(&mesh), []);
}
