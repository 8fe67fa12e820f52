//! Which numbers were seen already: a window of 64 behind the greatest (RFC 4303 section 3.4.3).

/// Accepts each number once, and none that is 64 or more behind the greatest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReplayWindow {
    greatest: u64,
    /// Bit n: the number `greatest - n` was seen.
    seen: u64,
}

impl ReplayWindow {
    /// Whether the number is new; it is not from then on. Numbers begin at 1.
    pub(super) fn accept(&mut self, number: u64) -> bool {
        if number > self.greatest {
            let ahead = number - self.greatest;
            self.seen = if ahead < 64 { self.seen << ahead | 1 } else { 1 };
            self.greatest = number;
            return true;
        }
        let behind = self.greatest - number;
        let is_new = number > 0 && behind < 64 && self.seen & 1 << behind == 0;
        if is_new {
            self.seen |= 1 << behind;
        }
        is_new
    }

    /// Whether the number is behind the window.
    pub(super) const fn is_past(&self, number: u64) -> bool {
        self.greatest.saturating_sub(number) >= 64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_passes_once_in_any_order_that_happens() {
        let mut window = ReplayWindow::default();
        let accepted = [1, 3, 2, 2, 3, 0, 100, 37, 36, 101, 100].map(|number| window.accept(number));
        assert_eq!(accepted, [true, true, true, false, false, false, true, true, false, true, false]);
        assert_eq!([0, 37, 38, 101, u64::MAX].map(|number| window.is_past(number)), [true, true, false, false, false]);
    }
}
