//! What the environment says where a program does not.

use std::{
    env,
    net::{IpAddr, SocketAddr},
};

use crate::{Error, ErrorKind, Result};

/// The value of a variable of the environment, unless it is empty or unset.
pub(crate) fn variable(name: &str) -> Result<Option<String>> {
    match env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.trim().is_empty())),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => {
            Err(Error::new(ErrorKind::InvalidArgument, format!("{name} in the environment is not text")))
        }
    }
}

/// Parses addresses with or without port.
pub(crate) fn parse_bind(list: &str) -> Result<Vec<SocketAddr>> {
    let parts = list.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let bare = part.trim_start_matches('[').trim_end_matches(']');
            part.parse().or_else(|_| bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0))).map_err(|_| {
                Error::new(ErrorKind::InvalidArgument, format!("HOLEPUNCH_BIND holds {part:?}, which is no address"))
            })
        })
        .collect()
}
