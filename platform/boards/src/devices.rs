//! The machine's devices, for whoever gives them to a service: registers and interrupts by `compatible`.

use crate::machine::Range;
use crate::tree::{Node, Refusal, Tree, cells};

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
            let (interrupt, is_edge) = interrupt(node).unzip();
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

/// The first interrupt at the GIC of the device whose registers these are. `None` if it has none.
#[must_use]
pub fn interrupt_at(dtb: &[u8], registers: Range) -> Option<u32> {
    let mut found = None;
    // What was found before a malformed part is as good.
    let _ = Tree::new(dtb).ok()?.walk(&mut |node| {
        if node.reg(0) == Some(registers) {
            found = found.or(interrupt(node));
        }
    });
    found.map(|(number, _)| number)
}

/// The first interrupt of a node: the number at the GIC, and whether it is signalled by an edge. `None` if it has none.
fn interrupt(node: &Node<'_, '_>) -> Option<(u32, bool)> {
    let value = node.property(b"interrupts")?;
    let cell = |index: usize| Some(cells(value, index * 4, 1)? as u32);
    let base = if cell(0)? == 0 { 32 } else { 16 };
    Some((cell(1)?.checked_add(base)?, cell(2)? & 3 != 0))
}
