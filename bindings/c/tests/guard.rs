//! What the guard does with a panic. No function of the library can be made to panic, so it is tested from within.
#![allow(
    dead_code,
    missing_docs,
    non_camel_case_types,
    unnameable_types,
    unreachable_pub,
    unsafe_code,
    clippy::missing_safety_doc,
    reason = "parts of a library, without the rest"
)]

#[path = "../src/error.rs"]
mod error;
#[path = "../src/guard.rs"]
mod guard;
#[path = "../src/status.rs"]
mod status;

use std::{
    cell::Cell,
    ffi::CStr,
    ptr,
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};

use error::holepunch_error_t;
use guard::{Handle, Poison};
use holepunch_core::{Error, ErrorKind};

#[derive(Default)]
struct Thing {
    poison: Poison,
    dropped: Arc<AtomicUsize>,
}

impl Handle for Thing {
    const NAME: &'static str = "thing";

    fn poison(&self) -> &Poison {
        &self.poison
    }
}

impl Drop for Thing {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

fn message(error: *mut holepunch_error_t) -> String {
    // SAFETY: the error was just made, and is freed once.
    unsafe {
        let text = CStr::from_ptr(error::holepunch_error_message(error)).to_str().expect("UTF-8").to_owned();
        error::holepunch_error_free(error);
        text
    }
}

#[test]
fn a_panic_poisons_the_handle_for_everything_but_free() {
    let thing = Thing::default();
    let dropped = Arc::clone(&thing.dropped);
    let thing = guard::into_raw(thing);
    let mut error = ptr::null_mut();
    let calls = Cell::new(0);
    // SAFETY: the handle is alive until it is freed at the end, and the error writable.
    unsafe {
        assert_eq!(guard::call(thing, &mut error, |_| panic!("half a change")), status::HOLEPUNCH_ERROR_POISONED);
        assert_eq!(message(error), "the library panicked: half a change");
        let again = guard::call(thing, &mut error, |_| {
            calls.set(calls.get() + 1);
            Ok(())
        });
        assert_eq!(again, status::HOLEPUNCH_ERROR_POISONED);
        assert_eq!(message(error), "an earlier call on this thing panicked");
        assert_eq!(calls.get(), 0);
        guard::free(thing, |_| panic!("also while closing"));
    }
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
}

#[test]
fn an_error_poisons_nothing_and_carries_its_parts() {
    let thing = guard::into_raw(Thing::default());
    let mut error = ptr::null_mut();
    // SAFETY: the handle is alive until it is freed at the end, and the error writable.
    unsafe {
        let failure = Error::new(ErrorKind::Io, "a\0b").with_os_code(Some(13));
        assert_eq!(guard::call(thing, &mut error, |_| Err(failure)), status::HOLEPUNCH_ERROR_IO);
        assert_eq!(error::holepunch_error_os_errno(error), 13);
        assert_eq!(message(error), "a\u{FFFD}b");
        assert_eq!(guard::call(thing, ptr::null_mut(), |_| Ok(())), status::HOLEPUNCH_OK);
        guard::free(thing, |_| {});
    }
}

#[test]
fn a_panic_without_a_handle_is_only_a_status() {
    // SAFETY: the error may be NULL.
    let status = unsafe { guard::call_free_standing(ptr::null_mut(), || std::panic::panic_any(7)) };
    assert_eq!(status, status::HOLEPUNCH_ERROR_POISONED);
}

#[test]
fn a_handle_freed_during_a_call_goes_when_the_call_returns() {
    let thing = Thing::default();
    let dropped = Arc::clone(&thing.dropped);
    let address = guard::into_raw(thing) as usize;
    let inside = Arc::new(Barrier::new(2));
    let (freed, wait) = mpsc::channel::<()>();
    let call = std::thread::spawn({
        let (inside, dropped) = (Arc::clone(&inside), Arc::clone(&dropped));
        move || {
            // SAFETY: the handle is alive when the call begins.
            unsafe {
                guard::call(address as *mut Thing, ptr::null_mut(), |_| {
                    inside.wait();
                    wait.recv().expect("the other thread frees the handle");
                    assert_eq!(dropped.load(Ordering::SeqCst), 0);
                    Ok(())
                })
            }
        }
    });
    inside.wait();
    // SAFETY: freed once, and not used again by this thread.
    unsafe { guard::free(address as *mut Thing, |_| {}) };
    freed.send(()).expect("the call still runs");
    assert_eq!(call.join().expect("the thread ends"), status::HOLEPUNCH_OK);
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
}
