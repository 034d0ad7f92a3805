//! A guest in place of the manager, with the handles to all that is free. It tries the management calls: what they must refuse, what must
//! be left when they failed halfway, and what must be back when all is gone.
//!
//! The boot argument `only=GROUP` chooses what it does; without it, all groups but `rounds`, `fuzz`, and `end`, which ends at once.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod books;
#[cfg(target_os = "none")]
mod child;
#[cfg(target_os = "none")]
mod extents;
#[cfg(target_os = "none")]
mod fuzz;
#[cfg(target_os = "none")]
mod limits;
#[cfg(target_os = "none")]
mod lives;
#[cfg(target_os = "none")]
mod machine;
#[cfg(target_os = "none")]
mod ports;
#[cfg(target_os = "none")]
mod revoke;
#[cfg(target_os = "none")]
mod vcpus;
#[cfg(target_os = "none")]
mod waiting;

portico_sdk::entry!(root);

#[cfg(not(target_os = "none"))]
fn root() -> u64 {
    0
}

#[cfg(target_os = "none")]
fn root() -> u64 {
    use portico_sdk::{dtb, hvc, println};
    if dtb::bootarg("only") == Some("end") {
        println!("it ends");
        return 1;
    }
    let mut tap = test_kit::Tap::new();
    let Some(mut books) = books::Books::open() else {
        println!("not ok 1 - this guest must run in place of the manager");
        println!("1..1");
        return 1;
    };
    match dtb::bootarg("only") {
        Some("rounds") => lives::rounds(&mut tap, &mut books),
        Some("fuzz") => {
            let number = |name| dtb::bootarg(name).and_then(|text| text.parse().ok());
            fuzz::run(&mut tap, &mut books, number("seed").unwrap_or(1), number("calls").unwrap_or(1_000_000));
        }
        _ => {
            extents::attempts(&mut tap, &mut books);
            revoke::attempts(&mut tap, &mut books);
            limits::attempts(&mut tap, &mut books);
            vcpus::attempts(&mut tap, &mut books);
            waiting::attempts(&mut tap, &mut books);
            ports::attempts(&mut tap, &mut books);
            machine::attempts(&mut tap, &mut books);
        }
    }
    let failed = tap.finish();
    let _ = hvc::system_off(books.system, 0);
    failed
}
