//! The program `holepunch`; everything it does is in the library.

fn main() {
    std::process::exit(holepunch::cli::run(std::env::args_os()));
}
