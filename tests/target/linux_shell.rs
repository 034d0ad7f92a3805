//! A Linux guest's shell, as somebody at the machine's terminal uses it.

use anyhow::{Result, ensure};
use portico_tests::Machine;

/// Gives a key sequence to the console service: the keyboard to the manager.
const SWITCH: u8 = 0x1d;

/// Gives a guest the keyboard, and waits for its shell.
pub fn focus(running: &mut Machine, guest: &str) -> Result<()> {
    look(running, guest)?;
    // A shell that takes its input: the answer is none of the letters that were typed.
    shell(running, "echo ready-$((6*7))", "^ready-42$").map(drop)
}

/// Gives a guest the keyboard, whatever it does with it.
pub fn look(running: &mut Machine, guest: &str) -> Result<()> {
    let mark = running.mark();
    running.send(&format!("console {guest}\r"))?;
    running.wait_after(mark, &format!(r#"keyboard and screen of guest "{guest}""#)).map(drop)
}

/// Gives the keyboard back to the manager.
pub fn leave(running: &mut Machine) -> Result<()> {
    let mark = running.mark();
    running.send_bytes(&[SWITCH])?;
    running.wait_after(mark, "keyboard of the manager").map(drop)
}

/// Types a command, and waits for a line of its output.
pub fn shell(running: &mut Machine, command: &str, answer: &str) -> Result<String> {
    let mark = running.mark();
    running.send(&format!("{command}\r"))?;
    running.wait_after(mark, answer)
}

/// The kernel found nothing wrong with itself.
pub fn sound(running: &mut Machine) -> Result<()> {
    let count =
        r#"echo "wrong: $(dmesg | grep -cE 'WARNING|BUG:|Oops|Call trace|rcu_sched|broke the protocol|cannot be')""#;
    let answer = shell(running, count, r"^wrong: \d+$")?;
    ensure!(answer == "wrong: 0", "the kernel complains\n{}", running.last_lines());
    Ok(())
}
