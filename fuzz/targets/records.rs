//! An input as a list of records, so that a fuzzer's cutting and splicing leaves most of it meaningful: an operation
//! (one byte), a length (two, little-endian), and so many bytes, of which an operation reads what it needs.

use std::net::SocketAddr;

/// One operation with its fields.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) operation: u8,
    pub(crate) fields: Fields<'a>,
}

/// The records of an input; the last may be cut short.
pub(crate) fn records(mut input: &[u8]) -> impl Iterator<Item = Record<'_>> {
    std::iter::from_fn(move || {
        let (&[operation, low, high], rest) = input.split_first_chunk()?;
        let (fields, rest) = rest.split_at(usize::from(u16::from_le_bytes([low, high])).min(rest.len()));
        input = rest;
        Some(Record { operation, fields: Fields(fields) })
    })
}

/// Appends a record to an input.
pub(crate) fn push_record(input: &mut Vec<u8>, operation: u8, fields: &[u8]) {
    let fields = &fields[..fields.len().min(usize::from(u16::MAX))];
    input.push(operation);
    input.extend_from_slice(&(fields.len() as u16).to_le_bytes());
    input.extend_from_slice(fields);
}

/// The bytes of a record, read from the front; what is not there is zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn u8(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&mut self, table: &[T]) -> T {
        table[usize::from(self.u8()) % table.len()]
    }

    /// Whatever was not read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }
}

/// Parses an address of a harness's tables.
pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().expect("the tables of addresses are right")
}

/// The one form of an address: IPv4 where IPv6 carries it.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
