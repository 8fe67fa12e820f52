//! How long C lets a call block: milliseconds and an optional token.

use std::time::Duration;

use holepunch_core::{Error, ErrorKind, Result, Wait};

use crate::{cancel::holepunch_cancel_t, endpoint::HOLEPUNCH_FOREVER, guard};

/// Longer times than ten years mean for ever: they would only overflow somebody's clock.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Reads a time limit; `None` is for ever.
pub(crate) fn limit(milliseconds: i64, name: &str) -> Result<Option<Duration>> {
    match u64::try_from(milliseconds) {
        Ok(milliseconds) => Ok(Some(Duration::from_millis(milliseconds)).filter(|time| *time < LONGEST)),
        Err(_) if milliseconds == HOLEPUNCH_FOREVER => Ok(None),
        Err(_) => Err(Error::new(ErrorKind::InvalidArgument, format!("{name} is {milliseconds}"))
            .with_hint("give milliseconds, 0 to poll, or HOLEPUNCH_FOREVER")),
    }
}

/// [`limit`] for calls that know no end of time.
pub(crate) fn bounded(milliseconds: i64, name: &str) -> Result<Duration> {
    Ok(limit(milliseconds, name)?.unwrap_or(LONGEST))
}

/// Reads `timeout_ms` and `cancel`, which may be NULL.
///
/// # Safety
/// `cancel` is NULL or a handle that is alive.
pub(crate) unsafe fn wait(timeout_ms: i64, cancel: *mut holepunch_cancel_t) -> Result<Wait> {
    let wait = limit(timeout_ms, "timeout_ms")?.map_or_else(Wait::forever, Wait::at_most);
    if cancel.is_null() {
        return Ok(wait);
    }
    // SAFETY: the caller's promise is the one asked for.
    let cancel = unsafe { guard::share(cancel) }?;
    Ok(wait.or_cancelled(cancel.inner()))
}
