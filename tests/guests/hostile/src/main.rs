//! A guest that tries everything that is forbidden, and what is allowed too often. Each attempt must get the documented
//! answer, or stop this domain and no other.
//!
//! Without arguments it makes all attempts that it must survive, and prints a report. With `attack=NAME` it makes one that must
//! end it, see [`fatal`]. With `fuzz=SEED` it makes `rounds=N` calls with random numbers and arguments. With `flood` it fills the hypervisor's log,
//! through which its report would not be legible. With `console` it attacks the console service, see [`screen`].
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod calls;
#[cfg(target_os = "none")]
mod console;
#[cfg(target_os = "none")]
mod cpu;
#[cfg(target_os = "none")]
mod el0;
#[cfg(target_os = "none")]
mod fatal;
#[cfg(target_os = "none")]
mod fuzz;
#[cfg(target_os = "none")]
mod handles;
#[cfg(target_os = "none")]
mod ports;
#[cfg(target_os = "none")]
mod power;
#[cfg(target_os = "none")]
mod screen;
#[cfg(target_os = "none")]
mod sibling;
#[cfg(target_os = "none")]
mod storms;
#[cfg(target_os = "none")]
mod timer;

portico_sdk::entry!(hostile);

#[cfg(not(target_os = "none"))]
fn hostile() -> u64 {
    0
}

#[cfg(target_os = "none")]
fn hostile() -> u64 {
    use portico_sdk::dtb;
    if let Some(name) = dtb::bootarg("attack") {
        fatal::attack(name);
        portico_sdk::println!("not ok 1 - {name}: still here");
        return 1;
    }
    if dtb::bootarg("flood").is_some() {
        return storms::flood();
    }
    if dtb::bootarg("console").is_some() {
        return screen::attack();
    }
    let mut tap = test_kit::Tap::new();
    if let Some(seed) = dtb::bootarg("fuzz") {
        let rounds = dtb::bootarg("rounds").and_then(|text| text.parse().ok()).unwrap_or(100_000);
        fuzz::run(&mut tap, seed.parse().unwrap_or(1), rounds);
        return tap.finish();
    }
    console::attempts(&mut tap);
    calls::attempts(&mut tap);
    handles::attempts(&mut tap);
    ports::attempts(&mut tap);
    cpu::attempts(&mut tap);
    el0::attempts(&mut tap);
    timer::attempts(&mut tap);
    power::attempts(&mut tap);
    storms::attempts(&mut tap);
    sibling::attempts(&mut tap);
    tap.finish()
}
