//! Map, unmap and lookup against a naive model: a map from page to page.

use super::descriptor::{Entry, decode, encode_leaf, encode_table};
use super::{Attrs, Tables, lookup, map, tail, unmap};
use crate::addr::{Ipa, IpaRange, Pa};
use portico_abi::Status;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};

/// Tables in host memory, with a limited number of pages, that watch the rules of break-before-make.
struct Host {
    pages: HashMap<u64, [u64; 512]>,
    next: u64,
    left: usize,
    breaks: usize,
    pending_break: Option<(u64, usize)>,
    touched: usize,
}

const ROOT: Pa = Pa::new(0x1000);

impl Host {
    fn new(left: usize) -> Self {
        let pages = HashMap::from([(ROOT.raw(), [0; 512])]);
        Self { pages, next: 0x2000, left, breaks: 0, pending_break: None, touched: 0 }
    }
}

impl Tables for Host {
    fn read(&self, table: Pa, index: usize) -> u64 {
        self.pages[&table.raw()][index]
    }

    fn write(&mut self, table: Pa, index: usize, desc: u64) {
        let entry = &mut self.pages.get_mut(&table.raw()).unwrap()[index];
        assert!(*entry & 1 == 0 || desc == 0, "a valid entry was changed without a break");
        assert!(desc == 0 || self.pending_break != Some((table.raw(), index)), "made before the break was complete");
        if *entry & 1 != 0 && desc == 0 {
            self.pending_break = Some((table.raw(), index));
        }
        *entry = desc;
        self.touched += 1;
    }

    fn alloc(&mut self) -> Option<Pa> {
        self.left = self.left.checked_sub(1)?;
        let pa = Pa::new(self.next);
        self.next += 0x1000;
        self.pages.insert(pa.raw(), [0; 512]);
        Some(pa)
    }

    fn free(&mut self, table: Pa) {
        assert!(self.pending_break.is_none(), "freed before the break was complete");
        let page = self.pages.remove(&table.raw()).unwrap();
        assert!(page.iter().all(|entry| *entry == 0));
        self.left += 1;
    }

    fn sync_break(&mut self) {
        self.breaks += 1;
        self.pending_break = None;
    }
}

fn range(first: u64, pages: u64) -> IpaRange {
    IpaRange::new(first, pages, 39).unwrap()
}

fn map_all(host: &mut Host, ipa: u64, pages: u64, pa: u64, max: usize) -> Result<(), Status> {
    let mut rest = Some((range(ipa, pages), Pa::new(pa)));
    while let Some((part, pa)) = rest {
        let done = map(host, ROOT, part, pa, Attrs::READ_WRITE, max)?;
        assert!(done >= 1 && done <= part.pages());
        rest = part.skip(done).map(|part| (part, Pa::new(pa.raw() + done * 4096)));
    }
    Ok(())
}

fn unmap_all(host: &mut Host, ipa: u64, pages: u64) -> Result<(), Status> {
    let mut rest = Some(range(ipa, pages));
    while let Some(part) = rest {
        host.touched = 0;
        let done = unmap(host, ROOT, part)?;
        assert!(done >= 1 && done <= part.pages());
        assert!(host.touched <= 512 + 2, "unbounded");
        host.pending_break = None;
        rest = part.skip(done);
    }
    Ok(())
}

#[test]
fn blocks_where_aligned() {
    let mut host = Host::new(10);
    map_all(&mut host, 0x4000_0000, 3 << 18, 0x8000_0000, 8).unwrap();
    let found = lookup(&host, ROOT, Ipa::new(0x5234_5678)).unwrap();
    assert_eq!((found.pa, found.level), (Pa::new(0x9234_5678), 1));
    assert_eq!(host.pages.len(), 1);
    // Ragged at both ends: pages, then 2 MiB blocks, then pages.
    map_all(&mut host, 0x1f_f000, 514, 0x3f_f000, 512).unwrap();
    assert_eq!(lookup(&host, ROOT, Ipa::new(0x1f_f000)).unwrap().level, 3);
    assert_eq!(lookup(&host, ROOT, Ipa::new(0x20_0000)).unwrap().level, 2);
    assert_eq!(lookup(&host, ROOT, Ipa::new(0x40_0000)).unwrap().pa, Pa::new(0x60_0000));
    assert_eq!(lookup(&host, ROOT, Ipa::new(0x40_1000)), None);
    assert_eq!(lookup(&host, ROOT, Ipa::new(1 << 39)), None);
}

#[test]
fn top_of_space() {
    let mut host = Host::new(10);
    let top = (1u64 << 39) - 0x1000;
    map_all(&mut host, top, 1, 0xffff_ffff_f000, 4).unwrap();
    assert_eq!(lookup(&host, ROOT, Ipa::new(top + 5)).unwrap().pa, Pa::new(0xffff_ffff_f005));
    let wrap = map(&mut host, ROOT, range(0, 2), Pa::new(!0xfff), Attrs::READ, 4);
    assert_eq!(wrap, Err(Status::Invalid));
    let beyond = map(&mut host, ROOT, range(0, 2), Pa::new(0xffff_ffff_f000), Attrs::READ, 4);
    assert_eq!(beyond, Err(Status::Invalid));
    let wide = IpaRange::new(1 << 39, 1, 40).unwrap();
    assert_eq!(map(&mut host, ROOT, wide, Pa::new(0), Attrs::READ, 4), Err(Status::Invalid));
    assert_eq!(unmap(&mut host, ROOT, wide), Err(Status::Invalid));
    unmap_all(&mut host, 0, 1 << 27).unwrap();
    assert_eq!(host.pages.len(), 1);
}

#[test]
fn blocks_go_whole() {
    let mut host = Host::new(2);
    map_all(&mut host, 0, 1 << 18, 0, 1).unwrap();
    map_all(&mut host, 1 << 30, 1024, 1 << 30, 2).unwrap();
    // A part of a block, from its start, its middle, and at the end of a range that begins with a whole one.
    assert_eq!(unmap(&mut host, ROOT, range(0, 512)), Err(Status::Invalid));
    assert_eq!(unmap(&mut host, ROOT, range(0x20_1000, 1 << 18)), Err(Status::Invalid));
    assert_eq!(unmap(&mut host, ROOT, range(1 << 30, 513)), Ok(512));
    assert_eq!(unmap(&mut host, ROOT, range((1 << 30) + 0x20_0000, 1)), Err(Status::Invalid));
    for ipa in [0, 0x20_1000, 0x3fff_f000, (1 << 30) + 0x20_0000] {
        assert_eq!(lookup(&host, ROOT, Ipa::new(ipa)).unwrap().pa, Pa::new(ipa));
    }
}

#[test]
fn nothing_changes_without_pages() {
    let mut host = Host::new(1);
    // Needs two tables, gets one: nothing stays.
    assert_eq!(map(&mut host, ROOT, range(0x1000, 1), Pa::new(0), Attrs::READ, 8), Err(Status::NoBudget));
    assert_eq!((host.left, host.pages.len()), (1, 1));
}

/// Unmaps a mapping from its end, as far as it goes, and says how many parts that took.
fn unmap_from_end(host: &mut Host, ipa: u64, pages: u64) -> Result<usize, Status> {
    let (mut left, mut parts) = (pages, 0);
    while left > 0 {
        let part = tail(host, ROOT, range(ipa, left));
        assert_eq!(part.end(), range(ipa, left).end());
        unmap_all(host, part.first().raw(), part.pages())?;
        left -= part.pages();
        parts += 1;
    }
    Ok(parts)
}

#[test]
fn from_the_end_needs_no_page() {
    let mut host = Host::new(8);
    // Pages, 2 MiB blocks, a 1 GiB block, 2 MiB blocks, pages.
    let (ipa, pages) = ((1 << 30) - 0x60_1000, (1 << 18) + 4096);
    map_all(&mut host, ipa, pages, ipa + (4 << 30), 512).unwrap();
    assert_eq!(lookup(&host, ROOT, Ipa::new(1 << 30)).unwrap().level, 1);
    host.left = 0;
    assert_eq!(unmap_from_end(&mut host, ipa, pages), Ok(1 + 3 + 1 + 4 + 1));
    assert_eq!(host.pages.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_mapping_unmaps_from_its_end(first in 0u64..1 << 19, pages in 1u64..1 << 19, skew in 0u64..1 << 18, aligned: bool) {
        let mut host = Host::new(2000);
        // Without wide entries each page costs the model's time.
        let pages = if aligned { pages } else { pages >> 6 | 1 };
        let (ipa, skew) = (first << 12, if aligned { (skew & 1) << 30 } else { skew << 12 });
        map_all(&mut host, ipa, pages, ipa + skew, 512).unwrap();
        host.left = 0;
        prop_assert!(unmap_from_end(&mut host, ipa, pages).is_ok());
        prop_assert_eq!(host.pages.len(), 1);
    }

}

proptest! {
    #[test]
    fn descriptor_round_trip(page in 0u64..1 << 36, raw in 0u64..16, level in 1u8..=3) {
        if let Some(attrs) = Attrs::from_abi(raw) {
            let pa = Pa::new(page << 12);
            prop_assert_eq!(decode(encode_leaf(pa, attrs, level), level), Entry::Leaf(pa, attrs));
            if level < 3 {
                prop_assert_eq!(decode(encode_table(pa), level), Entry::Table(pa));
            }
        } else {
            prop_assert!(raw & 0b1100 == 0b1100);
        }
    }

    #[test]
    fn like_the_model(steps in prop::collection::vec(
        (0u8..4, 0u64..2100, 1u64..1600, 0u64..3, 1usize..600, any::<bool>()), 1..24),
        budget in 0usize..12)
    {
        // Around a 1 GiB boundary, in a window of 2 * 2100 pages; pa offset 0 allows 2 MiB blocks.
        let base = (1u64 << 30) - (2048 << 12);
        let mut host = Host::new(budget);
        let mut model: BTreeMap<u64, u64> = BTreeMap::new();
        for (op, first, pages, skew, max, aligned) in steps {
            let (first, pages) = if aligned { (first & !511, pages.next_multiple_of(512)) } else { (first, pages) };
            let ipa = base + (first << 12);
            let pa = ipa + (7 << 30) + (skew << 12);
            if op < 2 {
                let mut rest = Some((range(ipa, pages), Pa::new(pa)));
                while let Some((part, pa)) = rest {
                    let taken = |n: u64| (0..n).any(|i| model.contains_key(&(part.first().raw() + (i << 12))));
                    match map(&mut host, ROOT, part, pa, Attrs::READ_WRITE_EXEC, max) {
                        Ok(done) => {
                            prop_assert!(done >= 1 && done <= part.pages() && !taken(done));
                            for i in 0..done {
                                model.insert(part.first().raw() + (i << 12), pa.raw() + (i << 12));
                            }
                            rest = part.skip(done).map(|part| (part, Pa::new(pa.raw() + done * 4096)));
                        }
                        Err(Status::Exists) => {
                            prop_assert!(taken(part.pages()));
                            break;
                        }
                        Err(error) => {
                            prop_assert_eq!(error, Status::NoBudget);
                            break;
                        }
                    }
                    host.pending_break = None;
                }
            } else {
                let mut rest = Some(range(ipa, pages));
                while let Some(part) = rest {
                    // Refused: a part of a block.
                    let Ok(done) = unmap(&mut host, ROOT, part) else { break };
                    prop_assert!(done >= 1 && done <= part.pages());
                    for i in 0..done {
                        model.remove(&(part.first().raw() + (i << 12)));
                    }
                    host.pending_break = None;
                    rest = part.skip(done);
                }
            }
            prop_assert_eq!(host.left + host.pages.len() - 1, budget);
        }
        for page in 0..4200u64 {
            let ipa = base + (page << 12);
            let found = lookup(&host, ROOT, Ipa::new(ipa + 3)).map(|t| t.pa.raw() - 3);
            prop_assert_eq!(found, model.get(&ipa).copied());
        }
        // The teardown needs no page, and gives every table back.
        host.left = 0;
        let before = host.pages.len() - 1;
        unmap_all(&mut host, 0, 1 << 27).unwrap();
        prop_assert_eq!((host.left, host.pages.len()), (before, 1));
    }
}
