//! Superpackets: whatever the metadata says, no byte is lost, doubled or made up (FAULTS 31).

use isatap_engine::offload::csum;
use isatap_engine::offload::merge::{Run, Segment};
use isatap_engine::offload::split::{MAX_SEGMENT_HEADERS, SplitPlan};
use isatap_engine::wire::vnet::{self, VnetHeader};

fn frame(data: &[u8]) -> Option<(VnetHeader, &[u8])> {
    let (header, inner) = data.split_first_chunk::<{ vnet::LEN }>()?;
    Some((VnetHeader::parse(header).ok()?, inner))
}

/// A vnet header and a superpacket: its segments together are its payload, in order, and none is longer than promised.
///
/// # Panics
/// A promise is broken.
pub fn split(data: &[u8]) {
    let Some((vnet, inner)) = frame(data) else {
        return;
    };
    let Ok(plan) = SplitPlan::new(&vnet, inner) else {
        return;
    };
    let mut next = plan.header_len;
    for index in 0..plan.count {
        let mut headers = [0; MAX_SEGMENT_HEADERS];
        let payload = plan.segment(inner, index, &mut headers);
        assert_eq!(payload.start, next, "a gap before segment {index}");
        assert!(plan.header_len + payload.len() <= plan.segment_len(), "too long");
        let said = usize::from(u16::from_be_bytes([headers[4], headers[5]]));
        assert_eq!(said + 40, plan.header_len + payload.len(), "the length it says");
        next = payload.end;
    }
    let whole = usize::from(u16::from_be_bytes([inner[4], inner[5]])) + 40;
    assert_eq!(next, whole, "the end of the superpacket");
}

/// Packets, each after its length in two bytes: a run of them, split again, is the same packets.
///
/// # Panics
/// A promise is broken.
pub fn merge(data: &[u8]) {
    let mut packets = Vec::new();
    let mut rest = data;
    while let Some((len, tail)) = rest.split_first_chunk::<2>() {
        let len = usize::from(u16::from_be_bytes(*len)).min(tail.len());
        packets.push(&tail[..len]);
        rest = &tail[len..];
    }
    let mut runs: Vec<(Run, Vec<&[u8]>)> = Vec::new();
    for packet in packets {
        let Some(segment) = Segment::new(packet) else {
            continue;
        };
        // As from a raw socket, which tells padding from the packet.
        let packet = &packet[..segment.payload().end];
        if let Some((run, members)) = runs.last_mut()
            && run.append(members[0], segment, packet).is_ok()
        {
            members.push(packet);
        } else {
            runs.push((Run::start(segment), vec![packet]));
        }
    }
    for (run, members) in &runs {
        assert_eq!(run.count(), members.len());
        if members.len() > 1 {
            unmerge(run, members);
        }
    }
}

fn unmerge(run: &Run, members: &[&[u8]]) {
    let mut whole = Vec::new();
    for (number, member) in members.iter().enumerate() {
        let payload = Segment::new(member).expect("it was one before").payload();
        let from = if number == 0 { 0 } else { payload.start };
        whole.extend_from_slice(&member[from..payload.end]);
    }
    let vnet = run.finish(&mut whole);
    assert_eq!(whole.len(), run.total_len());
    let plan = SplitPlan::new(&vnet, &whole).expect("what we merged can be split");
    assert_eq!(plan.count, members.len(), "as many as before");
    for (index, member) in members.iter().enumerate() {
        let mut headers = [0; MAX_SEGMENT_HEADERS];
        let payload = plan.segment(&whole, index, &mut headers);
        let again = [&headers[..plan.header_len], &whole[payload]].concat();
        assert_eq!(again.len(), member.len(), "segment {index}");
        // The checksum may be written as the other of two equal values, 0 and ffff; it must be right all the same.
        assert!(
            Segment::new(&again).is_some(),
            "segment {index} has a wrong checksum"
        );
        let at = plan.header_len - 4;
        assert_eq!(again[plan.header_len..], member[plan.header_len..]);
        assert_eq!(again[..40], member[..40], "segment {index}");
        assert_eq!(again[40..at.min(56)], member[40..at.min(56)], "segment {index}");
    }
}

/// A vnet header and a packet whose checksum is to be completed: nothing but the checksum changes.
///
/// # Panics
/// A promise is broken.
pub fn checksum(data: &[u8]) {
    let Some((vnet, inner)) = frame(data) else {
        return;
    };
    let mut packet = inner.to_vec();
    if csum::complete(&vnet, &mut packet).is_err() {
        assert_eq!(packet, inner, "a refusal changes nothing");
        return;
    }
    let at = usize::from(vnet.csum_start) + usize::from(vnet.csum_offset);
    for (index, (now, before)) in packet.iter().zip(inner).enumerate() {
        assert!(
            now == before || index == at || index == at + 1,
            "byte {index} changed"
        );
    }
}
