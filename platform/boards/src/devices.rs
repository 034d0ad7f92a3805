//! The machine's devices, for whoever gives them to a service: registers and interrupts by `compatible`.

use crate::machine::Range;
use crate::tree::{Refusal, Tree};

/// A device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its registers.
    pub registers: Range,
    /// Its first interrupt at the GIC.
    pub interrupt: Option<u32>,
    /// That is signalled by an edge.
    pub is_edge: bool,
}

/// Calls `visit` for each enabled device that is `compatible`, in the order of the tree.
///
/// # Errors
/// [`Refusal`]; what was visited until then stays visited.
pub fn each(dtb: &[u8], compatible: &str, mut visit: impl FnMut(&Device)) -> Result<(), Refusal> {
    Tree::new(dtb)?.walk(&mut |node| {
        if node.enabled()
            && node.compatible().any(|name| name == compatible.as_bytes())
            && let Some(registers) = node.reg(0)
        {
            let (interrupt, is_edge) = node.interrupt().unzip();
            visit(&Device { registers, interrupt, is_edge: is_edge == Some(true) });
        }
    })
}

/// The registers of the first device of a tree that is `compatible` and not disabled, if they have `bytes` at least.
#[must_use]
pub fn registers_of(dtb: &[u8], compatible: &[u8], bytes: u64) -> Option<Range> {
    let mut found = None;
    // What was found before a malformed part is as good.
    let _ = Tree::new(dtb).ok()?.walk(&mut |node| {
        if node.enabled() && node.compatible().any(|name| name == compatible) {
            found = found.or(node.reg(0));
        }
    });
    found.filter(|registers: &Range| registers.len >= bytes)
}
