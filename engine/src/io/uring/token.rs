//! What a completion belongs to, as it travels through the kernel.

/// What a completion belongs to; the 64-bit user data of its request. All but cancellations name one use by its ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    TunRead(u32),
    RawReceive(u32),
    Bell(u32),
    Cancel,
    Write(u32),
    Send(u32),
}

impl Token {
    #[inline]
    pub(super) fn pack(self) -> u64 {
        let (kind, ticket) = match self {
            Token::TunRead(ticket) => (1, ticket),
            Token::RawReceive(ticket) => (2, ticket),
            Token::Bell(ticket) => (3, ticket),
            Token::Cancel => (4, 0),
            Token::Write(ticket) => (5, ticket),
            Token::Send(ticket) => (6, ticket),
        };
        kind << 32 | u64::from(ticket)
    }

    #[inline]
    pub(super) fn unpack(data: u64) -> Option<Self> {
        let ticket = u32::try_from(data & u64::from(u32::MAX)).ok()?;
        match data >> 32 {
            1 => Some(Token::TunRead(ticket)),
            2 => Some(Token::RawReceive(ticket)),
            3 => Some(Token::Bell(ticket)),
            4 => Some(Token::Cancel),
            5 => Some(Token::Write(ticket)),
            6 => Some(Token::Send(ticket)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        for token in [
            Token::TunRead(1),
            Token::RawReceive(2),
            Token::Bell(3),
            Token::Cancel,
            Token::Write(0),
            Token::Send(u32::MAX),
        ] {
            assert_eq!(Token::unpack(token.pack()), Some(token));
        }
        for unknown in [0, 7 << 32, u64::MAX] {
            assert_eq!(Token::unpack(unknown), None);
        }
    }
}
