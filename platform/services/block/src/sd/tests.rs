//! The driver against a model of controller and card, with what a healthy one never does.

use super::controller::{Direction, Error};
use super::model::{Fault, Model};
use super::registers::{Register, status};
use super::transfer::{Blocks, Reader, Transfer};
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

struct Memory(Vec<u8>, usize);

impl Blocks for Memory {
    fn begin(&mut self, block: u32) {
        self.1 = block as usize * 512;
    }

    fn store(&mut self, word: usize, value: u64) {
        let at = self.1 + 8 * word;
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn load(&mut self, word: usize) -> u64 {
        let at = self.1 + 8 * word;
        u64::from_le_bytes(self.0[at..at + 8].try_into().unwrap())
    }
}

fn open(change: impl FnOnce(&Model)) -> Reader<Model> {
    let model = Model::new(2048);
    change(&model);
    Reader::open(model).unwrap()
}

/// Does a transfer, `budget` blocks in a turn.
fn run(reader: &mut Reader<Model>, transfer: Transfer, memory: &mut Memory, budget: u32) -> Result<(), Error> {
    reader.begin(transfer);
    for _ in 0..200_000 {
        let mut left = budget;
        if let Some(ended) = reader.turn(memory, &mut left) {
            assert!(reader.is_idle());
            return ended;
        }
    }
    panic!("it does not end");
}

fn read(reader: &mut Reader<Model>, sector: u64, blocks: u32) -> Result<Vec<u8>, Error> {
    let mut memory = Memory(vec![0; blocks as usize * 512], 0);
    run(reader, Transfer { direction: Direction::Read, sector, blocks }, &mut memory, 2).map(|()| memory.0)
}

fn held(reader: &Reader<Model>, sector: usize, blocks: usize) -> Vec<u8> {
    reader.io().state.borrow().memory[sector * 512..(sector + blocks) * 512].to_vec()
}

fn fault(reader: &Reader<Model>, index: u32, fault: Fault) {
    reader.io().state.borrow_mut().faults.push((index, fault));
}

#[test]
fn cards_of_both_kinds_get_ready() {
    let mut large = open(|_| {});
    let card = *large.card();
    assert!(card.is_block_addressed && card.has_four_lines && card.is_fast && !card.is_read_only);
    assert_eq!(card.sectors, 2048);
    assert_eq!(read(&mut large, 2047, 1).unwrap(), held(&large, 2047, 1));
    let mut small = open(|model| model.state.borrow_mut().is_byte_addressed = true);
    assert!(!small.card().is_block_addressed && !small.card().is_fast);
    assert_eq!(small.card().sectors, 2048);
    assert_eq!(read(&mut small, 2045, 3).unwrap(), held(&small, 2045, 3));
    let model = Model::new(2048);
    model.state.borrow_mut().is_absent = true;
    assert!(matches!(Reader::open(model), Err(Error::Absent)));
}

proptest! {
    // Each case starts a card.
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn what_is_written_is_there(
        sector in 0_u64..2000, blocks in 1_u32..48, seed in any::<u8>(), budget in 1_u32..9, busy in 0_u32..4,
    ) {
        let mut reader = open(|_| {});
        let data: Vec<u8> = (0..blocks as usize * 512).map(|at| (at % 251) as u8 ^ seed).collect();
        let mut memory = Memory(data.clone(), 0);
        reader.io().state.borrow_mut().busy = busy;
        run(&mut reader, Transfer { direction: Direction::Write, sector, blocks }, &mut memory, budget).unwrap();
        prop_assert_eq!(reader.io().state.borrow().busy, 0, "answered while the card was busy");
        prop_assert_eq!(&held(&reader, sector as usize, blocks as usize), &data);
        prop_assert_eq!(read(&mut reader, sector, blocks).unwrap(), data);
        prop_assert_eq!(reader.mended(), 0);
    }
}

#[test]
fn errors_are_mended() {
    let faults = [
        Fault::Bus(status::NO_RESPONSE),
        Fault::Bus(1 << 17),
        Fault::Bus(1 << 21),
        Fault::Card(1 << 19),
        Fault::Silence,
    ];
    for kind in faults {
        let mut reader = open(|_| {});
        fault(&reader, 18, kind);
        assert_eq!(read(&mut reader, 5, 9).unwrap(), held(&reader, 5, 9), "{kind:?}");
        assert_eq!(reader.mended(), 1);
        fault(&reader, 25, kind);
        let mut memory = Memory(vec![9; 4096], 0);
        let write = Transfer { direction: Direction::Write, sector: 7, blocks: 8 };
        assert_eq!(run(&mut reader, write, &mut memory, 3), Ok(()), "{kind:?}");
        assert_eq!((held(&reader, 7, 8), reader.mended()), (vec![9; 4096], 2));
    }
}

#[test]
fn what_fails_always_has_failed() {
    let mut reader = open(|_| {});
    (0..3).for_each(|_| fault(&reader, 17, Fault::Card(1 << 21)));
    assert!(matches!(read(&mut reader, 5, 1), Err(Error::Card(_))));
    assert_eq!(read(&mut reader, 5, 1).unwrap(), held(&reader, 5, 1), "the next one is not to blame");
}

#[test]
fn a_card_that_is_gone_fails_and_another_is_not_written_to() {
    let mut reader = open(|_| {});
    reader.io().state.borrow_mut().is_absent = true;
    assert_eq!(read(&mut reader, 5, 1), Err(Error::Absent));
    reader.io().state.borrow_mut().is_absent = false;
    assert_eq!(read(&mut reader, 5, 1), Err(Error::Absent), "for good");
    let mut reader = open(|_| {});
    fault(&reader, 24, Fault::Bus(1 << 16));
    fault(&reader, 13, Fault::Bus(1 << 16));
    reader.io().state.borrow_mut().cid = 78;
    let mut memory = Memory(vec![9; 512], 0);
    let write = Transfer { direction: Direction::Write, sector: 7, blocks: 1 };
    assert_eq!(run(&mut reader, write, &mut memory, 3), Err(Error::Changed));
    assert!(!reader.io().state.borrow().memory.windows(512).any(|window| window == [9; 512]));
}

#[test]
fn who_sleeps_is_interrupted() {
    use super::registers::Io;
    let mut reader = open(|_| {});
    assert!(reader.listen(), "nothing to do");
    reader.begin(Transfer { direction: Direction::Read, sector: 0, blocks: 4 });
    assert!(!reader.listen(), "it was not begun");
    let mut memory = Memory(vec![0; 2048], 0);
    assert_eq!(reader.turn(&mut memory, &mut 1), None);
    assert!(!reader.listen(), "a block is ready");
    assert_eq!(reader.io().read(Register::SignalEnable), status::ALL);
    reader.ignore();
    assert_eq!(reader.io().read(Register::SignalEnable), 0);
}
