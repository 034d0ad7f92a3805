//! That nothing of the hypervisor that stays refers to code that is unmapped when boot is over.
//!
//! The linker puts boot's modules into a section of their own by their names. A call into it from elsewhere would be a fault in EL2, in a case that perhaps
//! no test meets; so every branch and every address of the text that stays is looked at, and the constants for what boot alone may call.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use elf::ElfBytes;
use elf::abi::{SHF_ALLOC, SHF_EXECINSTR, SHT_NOBITS, STT_FUNC};
use elf::endian::LittleEndian;
use elf::section::SectionHeader;

use crate::build;

/// Where the hypervisor's linker script puts what only boot executes.
pub const SECTION: &str = ".init";

/// A function of the text that stays.
struct Function {
    name: String,
    /// Addresses that it branches to, calls or takes.
    targets: Vec<u64>,
    start: u64,
}

/// Checks the hypervisor that was built last.
///
/// # Errors
/// Which function refers to what, or that the hypervisor was not built.
pub fn check() -> Result<()> {
    let path = build::built().hyp_elf;
    let file = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let parsed = ElfBytes::<LittleEndian>::minimal_parse(&file)?;
    let section = |name: &str| -> Result<SectionHeader> {
        parsed.section_header_by_name(name)?.with_context(|| format!("no section {name}"))
    };
    let (boot, text) = (section(SECTION)?, section(".text")?);
    let (code, _) = parsed.section_data(&text)?;
    let (symbols, names) = parsed.symbol_table()?.context("no symbols")?;
    let is_in = |section: &SectionHeader, at: u64| (section.sh_addr..section.sh_addr + section.sh_size).contains(&at);
    let mut functions = Vec::new();
    for symbol in symbols.iter().filter(|symbol| symbol.st_symtype() == STT_FUNC && is_in(&text, symbol.st_value)) {
        let from = (symbol.st_value - text.sh_addr) as usize;
        let body = code.get(from..from + symbol.st_size as usize).context("a function ends outside the text")?;
        let targets = targets(body, symbol.st_value);
        functions.push(Function { name: names.get(symbol.st_name as usize)?.into(), targets, start: symbol.st_value });
    }
    if functions.is_empty() {
        bail!("the hypervisor has no function");
    }
    // What the compiler has outlined of boot's functions, or not put into them of an iterator that they call with a closure, stands in the text that
    // stays. Only they can go there: it is wrong if another does.
    let mut of_boot = BTreeSet::new();
    loop {
        let reaches = |at: &u64| is_in(&boot, *at) || of_boot.contains(at);
        let found = functions.iter().filter(|function| function.targets.iter().any(reaches));
        let (made_for_boot, others): (Vec<_>, Vec<_>) = found.partition(|function| is_made_for_callers(&function.name));
        if let Some(other) = others.first() {
            bail!("{} stays when boot is over, and refers to what does not", other.name);
        }
        let starts: BTreeSet<u64> = made_for_boot.iter().map(|function| function.start).collect();
        if starts == of_boot {
            break;
        }
        of_boot = starts;
    }
    for section in parsed.section_headers().context("no sections")?.iter() {
        let has = |flag: u32| section.sh_flags & u64::from(flag) != 0;
        if !has(SHF_ALLOC) || has(SHF_EXECINSTR) || section.sh_type == SHT_NOBITS {
            continue;
        }
        let (data, _) = parsed.section_data(&section)?;
        let mut held = data.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
        if let Some(at) = held.find(|word| of_boot.contains(word)) {
            bail!("the hypervisor's data has the address {at:#x} of a function that only boot may call");
        }
    }
    Ok(())
}

/// Says whether the compiler makes a function of this name for those that call it: outlined from them, or of a generic one of `core` (in either way
/// of mangling names).
fn is_made_for_callers(name: &str) -> bool {
    let is_of_core = name.starts_with("_ZN4core") || name.starts_with("_R") && name.contains("_4core");
    name.contains("OUTLINED_FUNCTION") || is_of_core
}

/// The addresses to which code at `start` branches, or that it takes.
fn targets(code: &[u8], start: u64) -> Vec<u64> {
    let words = code.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes));
    let mut pages = [None; 32];
    let mut targets = Vec::new();
    for (word, at) in words.zip((start..).step_by(4)) {
        let target = target(word, at);
        targets.extend(target);
        let register = |shift: u32| (word >> shift & 31) as usize;
        if word & 0x9f00_0000 == 0x9000_0000 {
            pages[register(0)] = target;
        } else if word & 0xffc0_0000 == 0x9100_0000 {
            // ADD (immediate), which makes an address of ADRP's page
            targets.extend(pages[register(5)].map(|page| page + u64::from(word >> 10 & 0xfff)));
        }
    }
    targets
}

/// Where an A64 instruction at `at` branches to, or of which address it takes the page or all. (Arm ARM DDI 0487, "A64 Base Instructions")
fn target(word: u32, at: u64) -> Option<u64> {
    let signed = |value: u32, bits: u32| i64::from((value << (32 - bits)) as i32 >> (32 - bits));
    let offset = match word {
        // B, BL
        _ if word & 0x7c00_0000 == 0x1400_0000 => signed(word & 0x3ff_ffff, 26) * 4,
        // B.cond, CBZ, CBNZ
        _ if word & 0xff00_0010 == 0x5400_0000 || word & 0x7e00_0000 == 0x3400_0000 => {
            signed(word >> 5 & 0x7_ffff, 19) * 4
        }
        // TBZ, TBNZ
        _ if word & 0x7e00_0000 == 0x3600_0000 => signed(word >> 5 & 0x3fff, 14) * 4,
        // ADR, ADRP
        _ if word & 0x1f00_0000 == 0x1000_0000 => {
            let immediate = signed((word >> 5 & 0x7_ffff) << 2 | word >> 29 & 3, 21);
            if word >> 31 == 1 {
                return Some((at & !0xfff).wrapping_add_signed(immediate << 12));
            }
            immediate
        }
        _ => return None,
    };
    Some(at.wrapping_add_signed(offset))
}

#[cfg(test)]
mod tests {
    use super::{target, targets};

    #[test]
    fn a_page_and_its_offset_are_an_address() {
        // adrp x5 +3 pages, nop, add x0, x5, #0x18
        let code: Vec<u8> =
            [0xf000_0005, 0xd503_201f, 0x9100_60a0_u32].iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(targets(&code, 0x60_0000_4000), [0x60_0000_7000, 0x60_0000_7018]);
    }

    #[test]
    fn targets_are_those_that_a_disassembler_shows() {
        let at = 0x60_0000_4000;
        // bl -4, b +8, b.eq +12, cbz x1 -8, tbnz w0 #3 +16, adr x0 +1, adrp x0 -1 page, adrp x5 +3 pages, nop
        let cases = [
            (0x97ff_ffff, Some(at - 4)),
            (0x1400_0002, Some(at + 8)),
            (0x5400_0060, Some(at + 12)),
            (0xb4ff_ffc1, Some(at - 8)),
            (0x3718_0080, Some(at + 16)),
            (0x3000_0000, Some(at + 1)),
            (0xf0ff_ffe0, Some(at - 0x1000)),
            (0xf000_0005, Some(at + 0x3000)),
            (0xd503_201f, None),
        ];
        for (word, wanted) in cases {
            assert_eq!(target(word, at), wanted, "{word:#x}");
        }
    }
}
