//! A seed of random numbers in a device tree, as a board's firmware passes one: `/chosen/rng-seed`.

use anyhow::{Context, Result};

/// Bytes of a seed.
pub const BYTES: usize = 32;

const PROPERTY: &str = "rng-seed";
/// `FDT_BEGIN_NODE` and the name of the node that is for what the firmware has to say.
const CHOSEN: &[u8] = b"\0\0\0\x01chosen\0\0";
/// `FDT_PROP`.
const PROP: u32 = 3;
/// Numbers of the header, of 32 bits, by their place in it.
const TOTAL: usize = 1;
const STRUCTURE_AT: usize = 2;
const STRINGS_AT: usize = 3;
const STRINGS_BYTES: usize = 8;
const STRUCTURE_BYTES: usize = 9;

/// Adds `/chosen/rng-seed` to a flattened device tree that has `/chosen` (Devicetree Specification, "Flattened Devicetree (DTB) Format").
///
/// # Errors
/// If it is not laid out as compilers do that: header, reservations, structure, strings; or has no `/chosen`.
pub fn add(tree: &[u8], seed: &[u8; BYTES]) -> Result<Vec<u8>> {
    let number = |index: usize| -> Result<usize> {
        let bytes =
            tree.get(index * 4..).and_then(|rest| rest.first_chunk()).context("the device tree has no header")?;
        Ok(u32::from_be_bytes(*bytes) as usize)
    };
    let part = |at: usize, bytes: usize| tree.get(at..at + bytes).context("a part of the device tree is not in it");
    let (structure_at, strings_at) = (number(STRUCTURE_AT)?, number(STRINGS_AT)?);
    let structure = part(structure_at, number(STRUCTURE_BYTES)?)?;
    let strings = part(strings_at, number(STRINGS_BYTES)?)?;
    anyhow::ensure!(structure_at < strings_at, "the device tree is not laid out as compilers do");
    let chosen = (0..structure.len()).step_by(4).find(|&at| structure[at..].starts_with(CHOSEN));
    let (before, after) = structure.split_at(chosen.context("the device tree has no /chosen")? + CHOSEN.len());

    let mut to = tree[..structure_at].to_vec();
    to.extend(before);
    for word in [PROP, BYTES as u32, strings.len() as u32] {
        to.extend(word.to_be_bytes());
    }
    to.extend(seed);
    to.extend(after);
    let (structure_bytes, strings_at) = (to.len() - structure_at, to.len());
    to.extend(strings);
    to.extend(PROPERTY.bytes().chain([0]));
    let (strings_bytes, total) = (to.len() - strings_at, to.len());
    let numbers =
        [(TOTAL, total), (STRINGS_AT, strings_at), (STRINGS_BYTES, strings_bytes), (STRUCTURE_BYTES, structure_bytes)];
    for (index, value) in numbers {
        to[index * 4..][..4].copy_from_slice(&u32::try_from(value)?.to_be_bytes());
    }
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use portico_boards::Machine;

    /// The board's own tree.
    const RPI4: &[u8] = include_bytes!("../../../platform/boards/tests/machines/rpi4.dtb");

    #[test]
    fn el2_finds_the_seed_and_what_was_there() {
        let seed: [u8; BYTES] = core::array::from_fn(|index| index as u8);
        // On the heap, since a reader wants them aligned.
        let (without, with) = (RPI4.to_vec(), add(RPI4, &seed).unwrap());
        let (mut before, mut after) = (Machine::default(), Machine::default());
        assert!(before.read(&without).is_ok() && after.read(&with).is_ok());
        assert_eq!((before.rng_seed, after.rng_seed), (&[][..], &seed[..]));
        assert_eq!(format!("{:?}", before.uart), format!("{:?}", after.uart));
    }

    #[test]
    fn what_is_no_tree_for_it_is_told() {
        assert!((0..RPI4.len()).step_by(97).all(|bytes| add(&RPI4[..bytes], &[0; BYTES]).is_err()));
        let chosen = RPI4.windows(CHOSEN.len()).position(|window| window == CHOSEN).unwrap();
        let mut other = RPI4.to_vec();
        other[chosen + 4] = b'x';
        assert!(add(&other, &[0; BYTES]).is_err());
    }
}
