//! `cargo xtask`: the one door to setting up, building, running and testing Portico.

use std::panic;
use std::process::{self, ExitCode};

use clap::Parser;

/// Exit code of a program that SIGPIPE ends, as shells tell it.
const BROKEN_PIPE: i32 = 128 + 13;

fn main() -> ExitCode {
    end_with_the_reader();
    match xtask::cli::Cli::parse().execute() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Ends without a word when nobody reads the output any more (`cargo xtask ... | head`). The signal itself stays ignored: it would also
/// end this program where a QEMU ends that it writes to.
fn end_with_the_reader() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let text = info.payload().downcast_ref::<String>();
        if text.is_some_and(|text| text.starts_with("failed printing to std") && text.contains("Broken pipe")) {
            process::exit(BROKEN_PIPE);
        }
        usual(info);
    }));
}
