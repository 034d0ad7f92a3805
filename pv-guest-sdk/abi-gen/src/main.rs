//! `portico-abi-gen [--check]`: writes the generated files, or says which are out of date.

use std::process::ExitCode;

fn main() -> ExitCode {
    let check = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => {
            eprintln!("usage: portico-abi-gen [--check]");
            return ExitCode::from(2);
        }
    };
    let files = match portico_abi_gen::generate() {
        Ok(files) => files,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut code = ExitCode::SUCCESS;
    for file in files {
        if check && !portico_abi_gen::is_current(&file) {
            eprintln!("{} is out of date: run `cargo run -p portico-abi-gen`", file.path.display());
            code = ExitCode::FAILURE;
        } else if !check && let Err(error) = portico_abi_gen::write(&file) {
            eprintln!("error: {}: {error}", file.path.display());
            code = ExitCode::FAILURE;
        }
    }
    code
}
