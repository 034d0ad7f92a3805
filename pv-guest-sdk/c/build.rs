//! Compiles what of the library is written in C itself, the front-ends in `device/` and the formatting in `text/`, and puts it into the
//! static library.
//!
//! `PORTICO_CC` names the compiler (`cargo xtask` sets it); without, a cross GCC or clang is looked for.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// As for every guest in C: no C library, no position independence, no FP and SIMD registers.
const FLAGS: [&str; 11] = [
    "-std=c11",
    "-O2",
    "-g",
    "-Wall",
    "-Wextra",
    "-ffreestanding",
    "-fno-pic",
    "-fno-stack-protector",
    "-ffunction-sections",
    "-mgeneral-regs-only",
    "-mstrict-align",
];

/// Where the sources are.
const FOLDERS: [&str; 2] = ["device", "text"];

fn main() -> Result<(), String> {
    for folder in FOLDERS {
        println!("cargo:rerun-if-changed={folder}");
    }
    println!("cargo:rerun-if-changed=../include/portico.h");
    println!("cargo:rerun-if-env-changed=PORTICO_CC");
    // On a host the library is checked, and never linked.
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return Ok(());
    }
    let folder = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    let (compiler, target) = compiler()?;
    let mut objects = Vec::new();
    for source in sources().map_err(|error| format!("{}: {error}", FOLDERS.join(", ")))? {
        let object = folder.join(source.file_name().unwrap_or_default()).with_extension("o");
        let mut command = Command::new(&compiler);
        command.args(target).args(FLAGS).args(["-I", "../include", "-c"]).arg(&source).arg("-o").arg(&object);
        let status = command.status().map_err(|error| format!("{}: {error}", compiler.display()))?;
        if !status.success() {
            return Err(format!("{} did not compile", source.display()));
        }
        objects.push(object);
    }
    fs::write(folder.join("libparts.a"), archive(&objects)?).map_err(|error| error.to_string())?;
    println!("cargo:rustc-link-search=native={}", folder.display());
    println!("cargo:rustc-link-lib=static=parts");
    Ok(())
}

/// The compiler, and what tells it for which machine.
fn compiler() -> Result<(OsString, Option<&'static str>), String> {
    let works = |name: &OsString| Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success());
    let names = ["aarch64-linux-gnu-gcc", "aarch64-none-elf-gcc", "aarch64-elf-gcc", "clang"].map(OsString::from);
    let found = std::env::var_os("PORTICO_CC").or_else(|| names.into_iter().find(works));
    let compiler = found.ok_or("no C compiler for AArch64: install a cross GCC or clang, or set PORTICO_CC")?;
    let is_clang = Path::new(&compiler).file_name().is_some_and(|name| name.to_string_lossy().contains("clang"));
    Ok((compiler, is_clang.then_some("--target=aarch64-none-elf")))
}

fn sources() -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for folder in FOLDERS {
        for entry in fs::read_dir(folder)? {
            files.push(entry?.path());
        }
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "c"));
    files.sort();
    Ok(files)
}

/// Wraps objects in an archive, for rustc to take them out of: it makes the index of symbols. (System V ar, common format)
fn archive(objects: &[PathBuf]) -> Result<Vec<u8>, String> {
    let mut bytes = b"!<arch>\n".to_vec();
    for object in objects {
        let data = fs::read(object).map_err(|error| format!("{}: {error}", object.display()))?;
        let name = object.file_name().unwrap_or_default().to_string_lossy();
        if name.len() > 15 {
            return Err(format!("{name} is too long a name for an archive"));
        }
        bytes.extend(
            format!("{:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", format!("{name}/"), 0, 0, 0, 100_644, data.len()).bytes(),
        );
        bytes.extend(&data);
        if data.len() % 2 == 1 {
            bytes.push(b'\n');
        }
    }
    Ok(bytes)
}
