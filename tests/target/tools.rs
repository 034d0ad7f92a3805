//! When EL2 is broken, and the tools that look into it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use portico_ctl::MachineKind;
use portico_tests::{Machine, Scenario};
use regex::Regex;
use serde_json::json;
use xtask::{gdb, trace};

use crate::boot::name;
use crate::trial;

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (machine, cpus) in [(MachineKind::Virt, 1), (MachineKind::Virt, 4), (MachineKind::Raspi4b, 4)] {
        trials.push(trial(format!("tools::panic_{}_{cpus}", name(machine)), move || panic(machine, cpus)));
    }
    trials.push(trial("tools::trace_is_a_timeline", timeline));
    trials.push(trial("tools::gdb_attaches_at_el2", debugger));
    trials
}

/// An instruction that is undefined at every level: `udf #1`.
const UNDEFINED: [u8; 4] = [1, 0, 0, 0];

/// Breaks EL2 while guests compute and call: it says why, leaves its epitaph, and nothing runs on.
fn panic(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("endless", machine, cpus).tools().boot()?;
    running.wait_all(&[r"^\[vectors\] trying", r"^\[spin\] trying", r"^\[neighbour\] healthy"])?;
    running.want_panic();
    let (text, _) = trace::locate(&mut running.qmp()?, &[machine], "portico_hypercall")?;
    let mut stub = running.stub()?;
    stub.write_physical(text, &UNDEFINED)?;
    stub.resume()?;

    // Exception class 0, unknown reason; the text is in the low half of EL2's space.
    let line = running.wait(r"portico: PANIC on pCPU \d$")?;
    let reason = running.wait(r"portico: exception in EL2: esr 0x2000000 elr 0x60000[0-9a-f]{5} ")?;
    running.wait("portico: stopped")?;
    for pcpu in 0..cpus {
        ensure!(!running.all(&format!("portico: trace {pcpu} 0x[0-9a-f]+ 0x[0-9a-f]+$"))?.is_empty(), "pCPU {pcpu}");
    }
    let pcpu = line.split_once("pCPU ").context("no pCPU")?.1;
    let reason = reason.split_once("portico: ").context("no reason")?.1;
    epitaph(&running, machine, pcpu, reason)?;
    all_stopped(&mut running)
}

/// The epitaph in memory says what the UART said: on which pCPU, and why.
fn epitaph(running: &Machine, machine: MachineKind, told_pcpu: &str, told_reason: &str) -> Result<()> {
    let mut qmp = running.qmp()?;
    let (address, size) = trace::locate(&mut qmp, &[machine], "PORTICO_EPITAPH")?;
    let memory = qmp.read_memory(address, size)?;
    let (magic, rest) = memory.split_at(8);
    let (words, reason) = rest.split_at(7 * 8);
    let words: Vec<u64> =
        words.chunks_exact(8).filter_map(|word| Some(u64::from_le_bytes(word.try_into().ok()?))).collect();
    let [pcpu, _vector, esr, elr, _far, _sp, len] = words.try_into().ok().context("seven words")?;
    ensure!(magic == b"EPITAPH!", "{magic:?}");
    let reason = String::from_utf8_lossy(reason.get(..len as usize).context("a longer reason than there is room")?);
    ensure!(told_pcpu == pcpu.to_string(), "the epitaph has pCPU {pcpu}, the UART {told_pcpu}");
    ensure!(told_reason == reason, "the epitaph has `{reason}`, the UART `{told_reason}`");
    ensure!(esr == 0x200_0000 && reason.contains(&format!("elr {elr:#x} ")), "{esr:#x} {elr:#x}");
    Ok(())
}

/// No guest writes, and every processor stays where it is, in EL2.
fn all_stopped(running: &mut Machine) -> Result<()> {
    let mark = running.mark();
    let before = places(running)?;
    running.take_for(Duration::from_millis(1200));
    let after = places(running)?;
    ensure!(before == after, "{before:x?} went on to {after:x?}");
    ensure!(after.iter().all(|pc| pc >> 32 == 0x60), "not in EL2's text: {after:x?}");
    ensure!(running.mark() == mark, "{}it goes on to write", running.last_lines());
    Ok(())
}

/// The program counters of all processors, each of which must be in EL2.
fn places(running: &Machine) -> Result<Vec<u64>> {
    let answer = running.qmp()?.execute("human-monitor-command", json!({ "command-line": "info registers -a" }))?;
    let text = answer.as_str().context("no text")?;
    let levels = Regex::new(r"(?m)^PSTATE=.* (EL\d[ht])")?;
    ensure!(levels.captures_iter(text).all(|found| &found[1] == "EL2h"), "{text}");
    let counters = Regex::new(r"(?m)^ *PC=([0-9a-f]{16})")?;
    counters.captures_iter(text).map(|found| Ok(u64::from_str_radix(&found[1], 16)?)).collect()
}

/// What `cargo xtask trace` prints of a machine on which guests nap, wake and end.
fn timeline() -> Result<()> {
    let mut running = Scenario::system("crash", MachineKind::Virt, 2).tools().boot()?;
    running.wait(r#"guest "kept": kept for inspection"#)?;
    running.wait(r"^\[neighbour\] healthy 2")?;
    let options = trace::Options { qmp: Some(running.qmp_socket()?), ..trace::Options::default() };
    let lines = trace::timeline(&options)?;
    let shape = Regex::new(r"^ *(\d+) +[+-]\d+ pcpu([01]) +([a-z0-9-]+) +[a-z]+=\d+ [a-z]+=(\d+|0x[0-9a-f]+)$")?;
    let mut events = BTreeSet::new();
    let mut before: Option<u32> = None;
    for line in &lines {
        let found = shape.captures(line).with_context(|| format!("`{line}`"))?;
        let time: u32 = found[1].parse()?;
        ensure!(before.is_none_or(|before| time.wrapping_sub(before) < 1 << 31), "`{line}` goes back in time");
        before = Some(time);
        events.insert(format!("{} {}", &found[3], &found[2]));
    }
    ensure!(lines.len() > 50, "{} lines", lines.len());
    for wanted in ["switch 0", "switch 1"] {
        ensure!(events.contains(wanted), "no {wanted} in {events:?}");
    }
    ensure!(!events.iter().any(|event| event.starts_with("event-")), "an event without a name: {events:?}");
    // Filters, and the other format.
    let last = trace::timeline(&trace::Options { pcpu: Some(1), last: Some(5), json: true, ..options })?;
    ensure!(last.len() == 5 && last.iter().all(|line| line.contains(r#""pcpu":1"#)), "{last:?}");
    // It was only stopped for a moment.
    let mark = running.mark();
    running.wait_after(mark, r"^\[neighbour\] healthy").map(drop)
}

/// GDB breaks in EL2, and knows names and lines there.
fn debugger() -> Result<()> {
    let mut running = Scenario::system("operator", MachineKind::Virt, 2).tools().boot()?;
    running.wait(r"^\[neighbour\] healthy 1")?;
    let commands =
        ["hbreak portico_hypercall", "continue", "info symbol $pc", "info line *$pc", "print $cpsr & 0xf", "detach"];
    let options = gdb::Options { commands: commands.map(str::to_string).to_vec(), ..gdb::Options::default() };
    let socket: PathBuf = running.stub_socket();
    let output = gdb::command(&options, &socket.display().to_string())?.output().context("gdb-multiarch")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let said = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(Regex::new(r"(?m)^portico_hypercall( \+ \d+)? in section \.text")?.is_match(&text), "{said}");
    ensure!(Regex::new(r#"Line \d+ of "hyp/src/trap\.rs""#)?.is_match(&text), "{said}");
    // PSTATE.M: EL2h.
    ensure!(text.contains("$1 = 9"), "{said}");
    // It runs on after the debugger has left.
    let mark = running.mark();
    running.wait_after(mark, r"^\[neighbour\] healthy").map(drop)
}
