//! The scheduler's promises, with instructions counted: one is a nanosecond, so shares do not depend on the host.

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use portico_ctl::MachineKind;
use portico_tests::{Machine, Scenario};

use crate::trial;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("sched::weights_1_2_4", weights),
        trial("sched::cap_25_percent", cap),
        trial("sched::reservation_meets_every_deadline", reservation),
    ]
}

fn boot(system: &'static str) -> Result<Machine> {
    Scenario::system(system, MachineKind::Virt, 1).icount().seconds(240).boot()
}

/// What a guest printed as its share, in millionths of a processor.
fn share(running: &mut Machine, guest: &str) -> Result<f64> {
    let line = running.wait(&format!(r"^\[{guest}\] share \d+, accounted \d+$"))?;
    let mut numbers = line.split(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty()).map(str::parse::<f64>);
    let (share, accounted) = (numbers.next().context("no share")??, numbers.next().context("no account")??);
    // What EL2 tells of stolen time is what the guest found.
    ensure!((share - accounted).abs() < 0.02 * share + 2000.0, "{line}");
    Ok(share)
}

fn weights() -> Result<()> {
    let mut running = boot("weights")?;
    let shares = [share(&mut running, "one")?, share(&mut running, "two")?, share(&mut running, "four")?];
    let sum: f64 = shares.iter().sum();
    println!("shares in millionths: {shares:?}");
    for (got, weight) in shares.iter().zip([1.0, 2.0, 4.0]) {
        let wanted = sum * weight / 7.0;
        ensure!((got / wanted - 1.0).abs() < 0.02, "{shares:?}: {got} instead of {wanted}");
    }
    ensure!(sum > 950_000.0, "{sum} millionths of the processor were used");
    Ok(())
}

fn cap() -> Result<()> {
    let share = share(&mut boot("cap")?, "capped")?;
    println!("share in millionths: {share}");
    ensure!((share / 250_000.0 - 1.0).abs() < 0.02, "{share} millionths");
    Ok(())
}

fn reservation() -> Result<()> {
    let mut running = boot("reservation")?;
    let line = running.wait(r"^\[periodic\] periods \d+, missed \d+, at most \d+ ns late")?;
    println!("{line}");
    ensure!(line.contains("missed 0,"), "{line}");
    Ok(())
}
