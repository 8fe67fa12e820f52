//! Structs that C gives and that may grow, read without trust.
//!
//! Such a struct starts with its size, as the caller's compiler saw it. A caller with an older header gives fewer
//! bytes, and what is missing has its default. A caller with a newer header gives more; as long as the bytes that
//! this library does not know are zero, which is the default of every field that is appended, nothing was asked that
//! it cannot do.

use std::{mem::size_of, ptr};

use holepunch_core::{Error, ErrorKind, Result};

use crate::guard;

/// No release will ever have a struct of this size; more is a mistake and is not read, in bytes.
const SIZE_LIMIT: usize = 4096;

/// A struct of the header that starts with its size.
///
/// # Safety
/// The type is `repr(C)`, its first field is `size: usize`, and every field may hold what C may write there.
pub(crate) unsafe trait SizedStruct: Sized {
    /// What the functions of the header call it.
    const NAME: &'static str;
    /// The smallest size that was ever right: that of the first release.
    const FIRST_SIZE: usize;
    /// Every field at its default; the size does not matter.
    const DEFAULT: Self;
}

/// Whether a struct that says to have `size` bytes may be touched at all.
pub(crate) fn check_size(size: usize, smallest: usize, name: &str) -> Result<()> {
    if (smallest..SIZE_LIMIT).contains(&size) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidArgument, format!("the size of {name} cannot be {size}"))
        .with_hint("set it to the sizeof of the struct"))
}

/// Sets every field to its default, those that this library does not know to zero, and the size to the size given.
///
/// # Safety
/// `out` is NULL or has `size` writable bytes.
pub(crate) unsafe fn init<T: SizedStruct>(out: *mut T, size: usize) -> Result<()> {
    if out.is_null() {
        return Err(guard::null(T::NAME));
    }
    check_size(size, T::FIRST_SIZE, T::NAME)?;
    let defaults = T::DEFAULT;
    // SAFETY: the caller says that there are `size` bytes; what is copied is at most that and at most the struct's.
    unsafe {
        out.cast::<u8>().write_bytes(0, size);
        ptr::copy_nonoverlapping((&raw const defaults).cast::<u8>(), out.cast::<u8>(), size.min(size_of::<T>()));
        out.cast::<usize>().write(size);
    }
    Ok(())
}

/// Copies what this library knows of a struct that may be shorter or longer; NULL is all defaults.
///
/// # Safety
/// `given` is NULL or has as many readable bytes as the size that it starts with says.
pub(crate) unsafe fn read<T: SizedStruct>(given: *const T) -> Result<T> {
    let mut copy = T::DEFAULT;
    if given.is_null() {
        return Ok(copy);
    }
    // SAFETY: it is not NULL, and every release starts with the size.
    let size = unsafe { given.cast::<usize>().read() };
    check_size(size, T::FIRST_SIZE, T::NAME)?;
    let known = size.min(size_of::<T>());
    // SAFETY: the caller says that there are `size` bytes.
    let rest = unsafe { std::slice::from_raw_parts(given.cast::<u8>().add(known), size - known) };
    if rest.iter().any(|byte| *byte != 0) {
        let message = format!("{} sets fields that this version does not know", T::NAME);
        return Err(Error::new(ErrorKind::Unsupported, message)
            .with_hint("use a library that is at least as new as the header"));
    }
    // SAFETY: `known` is at most the size of either, and the fields may hold what C wrote there.
    unsafe { ptr::copy_nonoverlapping(given.cast::<u8>(), (&raw mut copy).cast::<u8>(), known) };
    Ok(copy)
}
