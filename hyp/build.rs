//! Passes the linker script, on the bare-metal target only.

use std::env;

fn main() -> Result<(), env::VarError> {
    println!("cargo:rerun-if-changed=hyp.ld");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let folder = env::var("CARGO_MANIFEST_DIR")?;
        println!("cargo:rustc-link-arg-bins=-T{folder}/hyp.ld");
        println!("cargo:rustc-link-arg-bins=-no-pie");
        println!("cargo:rustc-link-arg-bins=-zmax-page-size=4096");
    }
    Ok(())
}
