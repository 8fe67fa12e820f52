//! The time of day, for people.

use std::{mem::MaybeUninit, time::SystemTime};

/// The local time as Python's `logging` writes it, `2026-11-23 03:12:53,827`.
pub(crate) fn local_time() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = libc::time_t::try_from(since.as_secs()).unwrap_or_default();
    let mut broken_down = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both are live; all zeros is a valid `tm`, which the call fills in, or leaves alone where it fails.
    let day = unsafe {
        libc::localtime_r(&raw const seconds, broken_down.as_mut_ptr());
        broken_down.assume_init()
    };
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02},{:03}",
        day.tm_year + 1900,
        day.tm_mon + 1,
        day.tm_mday,
        day.tm_hour,
        day.tm_min,
        day.tm_sec,
        since.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_day_has_a_fixed_form() {
        let time = local_time();
        let form: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(form, "0000-00-00 00:00:00,000");
        assert!(time.as_str() > "2024", "{time}");
    }
}
