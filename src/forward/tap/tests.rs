//! What is written of a super frame that was refused, against an independent kernel.

use super::*;
use crate::forward::testkit::{MemoryTap, Recipe, kernel};
use crate::wire::vnet::{GSO_ECN, GSO_NONE};

#[test]
fn segments_are_what_the_kernel_would_have_cut() {
    for ((v6, tcp), payload) in
        [(false, true), (true, true), (false, false), (true, false)].into_iter().flat_map(|kind| [(kind, 4000), (kind, 3501)])
    {
        // ACK, and what stands on one segment only: CWR, PSH and FIN. The ids wrap.
        let recipe = Recipe { v6, tcp, payload, flags: 0x99, id: 0xfffe, ..Recipe::default() };
        let (bytes, mut vnet) = (recipe.frame(), recipe.vnet(1000));
        vnet.gso_type |= if tcp { GSO_ECN } else { 0 };
        let parts: Vec<_> = bytes.chunks(777).map(IoSlice::new).collect();
        for csum in [true, false] {
            let mut tap = MemoryTap { csum, ..MemoryTap::default() };
            assert!(write_segments(&vnet, &parts, &mut tap), "{recipe:?}");
            assert!(tap.frames.iter().all(|(vnet, _)| vnet.gso_type == GSO_NONE && vnet.needs_csum() == csum), "{recipe:?}");
            assert!(tap.frames.iter().all(|(vnet, frame)| kernel::refusal(vnet, frame).is_none()), "{recipe:?}");
            let written: Vec<_> = tap.frames.iter().flat_map(|(vnet, frame)| kernel::packets(vnet, frame)).collect();
            assert_eq!(written.len(), 4);
            assert_eq!(written, kernel::packets(&vnet, &bytes), "{recipe:?}");
        }
    }
}

#[test]
fn what_contradicts_its_header_is_not_written() {
    let recipe = Recipe { payload: 4000, ..Recipe::default() };
    let (bytes, good) = (recipe.frame(), recipe.vnet(1000));
    let mut tap = MemoryTap::default();
    for bad in [VnetHeader { gso_size: 0, ..good }, VnetHeader { gso_type: 3, ..good }, VnetHeader { gso_type: GSO_NONE, ..good }] {
        assert!(!write_segments(&bad, &[IoSlice::new(&bytes)], &mut tap), "{bad:?}");
    }
    assert!(!write_segments(&good, &[IoSlice::new(&bytes[..10])], &mut tap) && !write_segments(&good, &[], &mut tap));
    assert!(tap.frames.is_empty());
}
