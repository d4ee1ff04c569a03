//! Packets at random: most of them plausible, many of them wrong in one way or more.

use super::Draw;
use isatap_tests::packet::checksum;

const UPPER: [u8; 20] = [
    6, 6, 6, 17, 17, 17, 58, 58, 58, 59, 4, 41, 47, 50, 132, 0, 43, 44, 51, 60,
];
/// What headers and MTUs of the world are near to.
const SIZES: [usize; 12] = [1, 4, 8, 20, 100, 1230, 1240, 1241, 1360, 1440, 1460, 1960];

/// An inner packet; sometimes none.
pub(crate) fn inner(draw: &mut Draw) -> Vec<u8> {
    let next_header = draw.one(&UPPER);
    let size = match draw.below(8) {
        0 => draw.below(3000),
        1 => draw.below(64),
        _ => draw.one(&SIZES) + draw.below(3) * draw.below(2),
    };
    let mut packet = vec![0; 40];
    packet[0] = 0x60 | draw.byte() >> 4;
    packet[1] = draw.byte() & if draw.once_in(3) { 0xff } else { 0x0f };
    packet[2] = draw.byte();
    packet[4..6].copy_from_slice(&u16::try_from(size).expect("small").to_be_bytes());
    packet[6] = next_header;
    packet[7] = draw.one(&[0, 1, 64, 255]);
    packet[8..24].copy_from_slice(&draw.v6().octets());
    packet[24..40].copy_from_slice(&draw.v6().octets());
    packet.extend((0..size).map(|at| u8::try_from(at % 251).expect("a byte")));
    if size > 0 {
        // The type of ICMPv6, or part of a port.
        packet[40] = draw.one(&[1, 2, 128, 129, 133, 134, 135, 136, 137, 138]);
    }
    match draw.below(40) {
        0 => packet[0] = draw.byte(),
        1 => packet.truncate(draw.below(packet.len())),
        2 => packet.extend((0..=draw.below(30)).map(|_| 0xee)),
        3 => packet[4..6].fill(0),
        4 => {
            let at = draw.below(packet.len().min(48));
            packet[at] = draw.byte();
        }
        _ => {}
    }
    packet
}

/// An outer packet.
pub(crate) fn outer(draw: &mut Draw) -> Vec<u8> {
    let mut payload = inner(draw);
    let (src, dst) = (draw.v4(), if draw.once_in(12) { draw.v4() } else { super::V4[0] });
    // More often than by chance the inner source belongs to the sender.
    if draw.once_in(2) && payload.len() >= 40 {
        payload[20..24].copy_from_slice(&src.octets());
    }
    let options: &[u8] = match draw.below(24) {
        0 => &[1, 1, 1, 1],
        1 => &[131, 7, 8, 10, 0, 0, 9, 0],
        _ => &[],
    };
    let header_len = 20 + options.len();
    let mut packet = vec![0; 20];
    packet[0] = 0x40 | u8::try_from(header_len / 4).expect("small");
    packet[1] = draw.byte() & if draw.once_in(3) { 0xff } else { 0xfc };
    let total = u16::try_from(header_len + payload.len()).expect("small");
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[4] = draw.byte();
    packet[6] = draw.one(&[0, 0, 0x40, 0x40, 0x40, 0x40, 0x40, 0x80, 0x20, 0x01]);
    packet[8] = draw.byte();
    packet[9] = if draw.once_in(40) {
        draw.one(&[4, 17, 47])
    } else {
        41
    };
    packet[12..16].copy_from_slice(&src.octets());
    packet[16..20].copy_from_slice(&dst.octets());
    packet.extend_from_slice(options);
    let is_damaged = draw.once_in(16);
    if is_damaged {
        let at = draw.below(20);
        packet[at] = draw.byte();
    }
    // Damaged or not, it looks good to the kernel's IPv4; or it does not.
    if !draw.once_in(30) {
        set_checksum(&mut packet);
    }
    packet.extend(payload);
    match draw.below(60) {
        0 => packet.truncate(draw.below(packet.len())),
        1 => packet.extend((0..=draw.below(30)).map(|_| 0xee)),
        _ => {}
    }
    packet
}

/// Makes the checksum right, of the header that is there.
pub(crate) fn set_checksum(packet: &mut [u8]) {
    let len = (usize::from(packet[0] & 0x0f) * 4).clamp(20, packet.len());
    packet[10..12].fill(0);
    let sum = checksum(&[&packet[..len]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}
