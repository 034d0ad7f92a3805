//! `portico-abi-gen [--check]`: writes the generated files, or says which are out of date. `--kernel-header` prints the header of the
//! Linux port, for work on its patches.

use std::process::ExitCode;

fn main() -> ExitCode {
    let check = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--check" => true,
        [flag] if flag == "--kernel-header" => return print_kernel_header(),
        _ => {
            eprintln!("usage: portico-abi-gen [--check | --kernel-header]");
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

fn print_kernel_header() -> ExitCode {
    match portico_abi_gen::kernel_header() {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
