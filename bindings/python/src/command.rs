//! The command line, for `python -m holepunch` and the console script.

use pyo3::prelude::*;

/// Runs the command line and returns its exit status. `argv[0]` is the program's name.
///
/// It installs its own handlers for SIGINT and SIGTERM and restores the former ones before it returns.
#[pyfunction]
pub(crate) fn run(py: Python<'_>, argv: Vec<String>) -> i32 {
    py.detach(move || holepunch::cli::run(argv))
}
