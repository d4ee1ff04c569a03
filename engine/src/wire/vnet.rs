//! `struct virtio_net_hdr`: what the kernel says about offload in front of each packet of a TUN opened with
//! `IFF_VNET_HDR` (`linux/virtio_net.h`, VIRTIO 1.2 5.1.6).
//!
//! ```text
//!  +-------+----------+---------+----------+------------+-------------+
//!  | flags | gso_type | hdr_len | gso_size | csum_start | csum_offset |
//!  +-- 1 --+--- 1 ----+--- 2 ---+--- 2 ----+---- 2 -----+----- 2 -----+   10 bytes, the host's byte order
//! ```
//!
//! `hdr_len` is a hint that the kernel itself does not keep consistent: compute header lengths from the
//! packet.

/// Bytes of the header; the TUN default (no `num_buffers`).
pub const LEN: usize = 10;

/// The checksum at `csum_start + csum_offset` covers only the pseudo-header; whoever sends the packet
/// completes it.
const FLAG_NEEDS_CSUM: u8 = 1;
/// The checksum was verified already.
const FLAG_DATA_VALID: u8 = 2;

/// A modifier of the GSO type: the packet has CWR set and needs it on the first segment only.
const GSO_ECN: u8 = 0x80;

/// How a superpacket is to be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum GsoType {
    /// One packet.
    None = 0,
    /// TCP over IPv4.
    TcpV4 = 1,
    /// UDP by IP fragmentation: the old UFO.
    Udp = 3,
    /// TCP over IPv6.
    TcpV6 = 4,
    /// UDP into datagrams: USO.
    UdpL4 = 5,
}

/// Why ten bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VnetError {
    /// A GSO type that was not negotiated, or none at all.
    GsoType,
}

/// The header as values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VnetHeader {
    /// The checksum is to be completed from `csum_start` on.
    pub needs_csum: bool,
    /// The checksum is known to be right.
    pub data_valid: bool,
    /// How to split.
    pub gso: GsoType,
    /// The packet may carry CWR, for its first segment only.
    pub ecn: bool,
    /// Bytes of all headers, as a hint.
    pub hdr_len: u16,
    /// Payload bytes per segment.
    pub gso_size: u16,
    /// Where the checksummed part starts.
    pub csum_start: u16,
    /// Where the checksum field lies in it.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// One complete packet, nothing to do: ten zero bytes.
    pub const NONE: VnetHeader = VnetHeader {
        needs_csum: false,
        data_valid: false,
        gso: GsoType::None,
        ecn: false,
        hdr_len: 0,
        gso_size: 0,
        csum_start: 0,
        csum_offset: 0,
    };

    /// Reads a header. Flags without a meaning for us are ignored.
    ///
    /// # Errors
    /// The GSO type is unknown. Whether numbers fit the packet is for the user of each to check.
    #[inline]
    pub fn parse(bytes: &[u8; LEN]) -> Result<Self, VnetError> {
        let gso = match bytes[1] & !GSO_ECN {
            0 => GsoType::None,
            1 => GsoType::TcpV4,
            3 => GsoType::Udp,
            4 => GsoType::TcpV6,
            5 => GsoType::UdpL4,
            _ => return Err(VnetError::GsoType),
        };
        Ok(VnetHeader {
            needs_csum: bytes[0] & FLAG_NEEDS_CSUM != 0,
            data_valid: bytes[0] & FLAG_DATA_VALID != 0,
            gso,
            ecn: bytes[1] & GSO_ECN != 0,
            hdr_len: u16::from_ne_bytes([bytes[2], bytes[3]]),
            gso_size: u16::from_ne_bytes([bytes[4], bytes[5]]),
            csum_start: u16::from_ne_bytes([bytes[6], bytes[7]]),
            csum_offset: u16::from_ne_bytes([bytes[8], bytes[9]]),
        })
    }

    /// Writes all ten bytes.
    #[inline]
    pub fn emit(&self, out: &mut [u8; LEN]) {
        out[0] = if self.needs_csum { FLAG_NEEDS_CSUM } else { 0 }
            | if self.data_valid { FLAG_DATA_VALID } else { 0 };
        out[1] = self.gso as u8 | if self.ecn { GSO_ECN } else { 0 };
        out[2..4].copy_from_slice(&self.hdr_len.to_ne_bytes());
        out[4..6].copy_from_slice(&self.gso_size.to_ne_bytes());
        out[6..8].copy_from_slice(&self.csum_start.to_ne_bytes());
        out[8..10].copy_from_slice(&self.csum_offset.to_ne_bytes());
    }
}
