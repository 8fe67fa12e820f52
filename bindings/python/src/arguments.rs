//! Arguments that Python programs may write in more than one way.

use std::net::{IpAddr, SocketAddr};

use holepunch::{Error, ErrorKind};
use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    types::{PyBytes, PyInt, PyMemoryView, PyString},
};

use crate::failure::Result;

/// One server or several, each `host[:port]`.
pub(crate) fn servers(servers: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    if servers.is_instance_of::<PyString>() {
        return Ok(vec![servers.extract()?]);
    }
    servers.try_iter()?.map(|server| server?.extract()).collect()
}

/// One local address or several, each `ip`, `ip:port`, `[v6]:port` or `(ip, port)`.
pub(crate) fn addresses(addresses: &Bound<'_, PyAny>) -> Result<Vec<SocketAddr>> {
    if let Some(address) = address(addresses)? {
        return Ok(vec![address]);
    }
    let mut found = Vec::new();
    for item in addresses.try_iter()? {
        let item = item?;
        let what = "a local address is a str or a tuple (host, port)";
        found.push(address(&item)?.ok_or_else(|| PyTypeError::new_err(what))?);
    }
    Ok(found)
}

/// One local address; `None` when the object is of neither form.
fn address(object: &Bound<'_, PyAny>) -> Result<Option<SocketAddr>> {
    let (host, port) = match object.extract::<(String, Bound<'_, PyInt>)>() {
        Ok((host, port)) => match port.extract() {
            Ok(port) => (host, port),
            Err(_) => {
                return Err(Error::new(ErrorKind::InvalidArgument, format!("{port} is no port"))
                    .with_hint("a port is a number from 0 to 65535")
                    .into());
            }
        },
        Err(_) => match object.extract::<String>() {
            Ok(text) => match text.parse() {
                Ok(address) => return Ok(Some(address)),
                Err(_) => (text, 0),
            },
            Err(_) => return Ok(None),
        },
    };
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&host);
    match bare.parse::<IpAddr>() {
        Ok(ip) => Ok(Some(SocketAddr::new(ip, port))),
        Err(_) => Err(Error::new(ErrorKind::InvalidArgument, format!("{host:?} is no local address"))
            .with_hint("a local address is an IP address of this machine, with or without a port")
            .into()),
    }
}

/// The bytes of a bytes-like object: borrowed from `bytes`, which cannot change, copied from everything else.
pub(crate) enum Bytes<'a> {
    Borrowed(&'a [u8]),
    Copied(Bound<'a, PyBytes>),
}

impl<'a> Bytes<'a> {
    /// Takes the bytes; a TypeError when the object is not bytes-like.
    pub(crate) fn new(object: &'a Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = object.cast::<PyBytes>() {
            return Ok(Self::Borrowed(bytes.as_bytes()));
        }
        let copy = PyMemoryView::from(object)?.call_method0("tobytes")?;
        Ok(Self::Copied(copy.cast_into::<PyBytes>()?))
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Copied(bytes) => bytes.as_bytes(),
        }
    }
}
