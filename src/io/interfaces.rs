//! The addresses of this host's interfaces.

use std::{io, net::IpAddr};

/// Every address but loopback, each once, in order.
pub(super) fn list() -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<_> = if_addrs::get_if_addrs()?
        .iter()
        .filter(|interface| !interface.is_loopback())
        .map(if_addrs::Interface::ip)
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    #[test]
    fn loopback_is_not_among_them() {
        assert!(super::list().unwrap().iter().all(|ip| !ip.is_loopback()));
    }
}
