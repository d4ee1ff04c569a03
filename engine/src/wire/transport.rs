//! The few transport fields that splitting, merging and steering need: TCP (RFC 9293 3.1) and UDP (RFC 768).
//!
//! ```text
//!  TCP                                                  UDP
//! +---------------+---------------+                    +---------------+---------------+
//! |  source port  |  destination  |  0                 |  source port  |  destination  |  0
//! +---------------+---------------+                    +---------------+---------------+
//! |        sequence number        |  4                 |    length     |   checksum    |  4
//! +-------------------------------+                    +---------------+---------------+
//! |    acknowledgement number     |  8
//! +----+----+-----+---------------+
//! | off|    |flags|    window     | 12   off: header length / 4, at least 5
//! +----+----+-----+---------------+
//! |   checksum    | urgent pointer| 16
//! +---------------+---------------+
//! |        options, padded        | 20
//! +-------------------------------+
//! ```

use super::{be16, be32};

/// Bytes of a TCP header without options.
pub const TCP_MIN_HEADER_LEN: usize = 20;
/// The largest TCP header: data offset 15.
pub const TCP_MAX_HEADER_LEN: usize = 60;
/// Where the checksum lies in a TCP header.
pub const TCP_CHECKSUM_OFFSET: u16 = 16;
/// Bytes of a UDP header.
pub const UDP_HEADER_LEN: usize = 8;
/// Where the checksum lies in a UDP header.
pub const UDP_CHECKSUM_OFFSET: u16 = 6;

/// No more data from the sender.
pub const FIN: u8 = 0x01;
/// Synchronise sequence numbers.
pub const SYN: u8 = 0x02;
/// Reset the connection.
pub const RST: u8 = 0x04;
/// Push.
pub const PSH: u8 = 0x08;
/// The acknowledgement number counts.
pub const ACK: u8 = 0x10;
/// The urgent pointer counts.
pub const URG: u8 = 0x20;
/// ECN echo (RFC 3168 6.1).
pub const ECE: u8 = 0x40;
/// Congestion window reduced (RFC 3168 6.1).
pub const CWR: u8 = 0x80;

/// Why bytes are no transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportError {
    /// Fewer bytes than the header needs.
    Truncated,
    /// TCP data offset below 5, UDP length below 8 or beyond the packet.
    Length,
}

/// A TCP header with its options and the payload behind it.
#[derive(Clone, Copy, Debug)]
pub struct TcpView<'a> {
    fixed: &'a [u8; TCP_MIN_HEADER_LEN],
    segment: &'a [u8],
    header_len: usize,
}

impl<'a> TcpView<'a> {
    /// Looks at the TCP segment that is all of `bytes`.
    ///
    /// # Errors
    /// The header does not fit, or claims to be shorter than its fixed part.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Self, TransportError> {
        let Some(fixed) = bytes.first_chunk::<TCP_MIN_HEADER_LEN>() else {
            return Err(TransportError::Truncated);
        };
        let header_len = usize::from(fixed[12] >> 4) * 4;
        if header_len < TCP_MIN_HEADER_LEN {
            return Err(TransportError::Length);
        }
        if header_len > bytes.len() {
            return Err(TransportError::Truncated);
        }
        Ok(TcpView {
            fixed,
            segment: bytes,
            header_len,
        })
    }

    /// Source port.
    #[inline]
    pub fn src_port(&self) -> u16 {
        be16(self.fixed, 0)
    }

    /// Destination port.
    #[inline]
    pub fn dst_port(&self) -> u16 {
        be16(self.fixed, 2)
    }

    /// Sequence number.
    #[inline]
    pub fn seq(&self) -> u32 {
        be32(self.fixed, 4)
    }

    /// Acknowledgement number.
    #[inline]
    pub fn ack(&self) -> u32 {
        be32(self.fixed, 8)
    }

    /// The eight flags; see [`FIN`] and following.
    #[inline]
    pub fn flags(&self) -> u8 {
        self.fixed[13]
    }

    /// Window, unscaled.
    #[inline]
    pub fn window(&self) -> u16 {
        be16(self.fixed, 14)
    }

    /// The checksum field.
    #[inline]
    pub fn checksum(&self) -> u16 {
        be16(self.fixed, 16)
    }

    /// Urgent pointer.
    #[inline]
    pub fn urgent(&self) -> u16 {
        be16(self.fixed, 18)
    }

    /// Bytes of the header with its options: 20..=60.
    #[inline]
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// The options with their padding.
    #[inline]
    pub fn options(&self) -> &'a [u8] {
        &self.segment[TCP_MIN_HEADER_LEN..self.header_len]
    }

    /// Everything behind the header.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        &self.segment[self.header_len..]
    }
}

/// A UDP header and exactly the payload its length field names.
#[derive(Clone, Copy, Debug)]
pub struct UdpView<'a> {
    fixed: &'a [u8; UDP_HEADER_LEN],
    datagram: &'a [u8],
}

impl<'a> UdpView<'a> {
    /// Looks at the UDP datagram at the start of `bytes`.
    ///
    /// # Errors
    /// The header does not fit, or its length field is below 8 or beyond `bytes`.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Self, TransportError> {
        let Some(fixed) = bytes.first_chunk::<UDP_HEADER_LEN>() else {
            return Err(TransportError::Truncated);
        };
        let len = usize::from(be16(fixed, 4));
        if len < UDP_HEADER_LEN {
            return Err(TransportError::Length);
        }
        match bytes.get(..len) {
            Some(datagram) => Ok(UdpView { fixed, datagram }),
            None => Err(TransportError::Length),
        }
    }

    /// Source port.
    #[inline]
    pub fn src_port(&self) -> u16 {
        be16(self.fixed, 0)
    }

    /// Destination port.
    #[inline]
    pub fn dst_port(&self) -> u16 {
        be16(self.fixed, 2)
    }

    /// The length field: header and payload.
    #[inline]
    pub fn len_field(&self) -> u16 {
        be16(self.fixed, 4)
    }

    /// The checksum field.
    #[inline]
    pub fn checksum(&self) -> u16 {
        be16(self.fixed, 6)
    }

    /// The payload.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        &self.datagram[UDP_HEADER_LEN..]
    }
}

/// Writes the sequence number.
///
/// # Panics
/// Like every setter here: when `header` is shorter than the field's end. Callers hold a slice that gave a
/// view.
#[inline]
pub fn set_tcp_seq(header: &mut [u8], seq: u32) {
    header[4..8].copy_from_slice(&seq.to_be_bytes());
}

/// Writes the eight TCP flags.
#[inline]
pub fn set_tcp_flags(header: &mut [u8], flags: u8) {
    header[13] = flags;
}

/// Writes the TCP checksum field.
#[inline]
pub fn set_tcp_checksum(header: &mut [u8], checksum: u16) {
    header[16..18].copy_from_slice(&checksum.to_be_bytes());
}

/// Writes the UDP length field.
#[inline]
pub fn set_udp_len(header: &mut [u8], len: u16) {
    header[4..6].copy_from_slice(&len.to_be_bytes());
}

/// Writes the UDP checksum field; a computed 0 is sent as 0xffff, since 0 means "none" (RFC 768, RFC 8200
/// 8.1).
#[inline]
pub fn set_udp_checksum(header: &mut [u8], checksum: u16) {
    let checksum = if checksum == 0 { 0xffff } else { checksum };
    header[6..8].copy_from_slice(&checksum.to_be_bytes());
}
