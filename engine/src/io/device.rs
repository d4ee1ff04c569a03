//! What a device is called now: people rename them, and the kernel keeps their indices.

use std::io;

use nix::net::if_::if_indextoname;

/// The name of the device with this index.
///
/// # Errors
/// `NotFound`: there is none any more, in this network namespace.
pub fn name_of(if_index: u32) -> io::Result<String> {
    // The wrapper gives an empty name for an index that nobody has.
    let name = if_indextoname(if_index).ok().filter(|name| !name.is_empty());
    let name = name.ok_or(io::ErrorKind::NotFound)?;
    Ok(name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::net::if_::if_nametoindex;

    #[test]
    fn loopback_has_one_and_nobody_has_none() {
        assert_eq!(name_of(if_nametoindex("lo").unwrap()).unwrap(), "lo");
        assert_eq!(
            name_of(u32::MAX >> 1).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
