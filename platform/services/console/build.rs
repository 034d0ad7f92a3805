//! Links the service as the SDK links every guest.

fn main() {
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo:rustc-link-arg-bins=-Tguest.ld");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
