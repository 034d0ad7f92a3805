//! Checks a request: after this nothing of it is looked at again.

use portico_abi::device::block::{INLINE_SEGMENTS, MAX_SEGMENTS, Request, SECTOR, Segment, Shape, feature, op, status};

/// What the requests of one virtual disk are held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Size of the virtual disk in sectors.
    pub sectors: u64,
    /// Writes are refused.
    pub is_read_only: bool,
    /// Features agreed on.
    pub features: u64,
    /// Most sectors of a read or write.
    pub max_sectors: u32,
    /// Most segments.
    pub max_segments: u32,
    /// Most sectors of a discard, of a write-zeroes.
    pub max_discard: u32,
    /// Most sectors of a write-zeroes.
    pub max_zeroes: u32,
}

/// Where a request's segments stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segments {
    /// In the request, the first so many.
    Inline(usize),
    /// In a table at this offset of the window, so many.
    Table(usize, usize),
}

/// Checks everything but the segments.
///
/// # Errors
/// One of [`status`].
pub fn check(request: &Request, limits: &Limits) -> Result<Segments, u32> {
    let count = usize::from(request.segments);
    let is_data = matches!(request.op, op::READ | op::WRITE);
    if request.flags != 0 || (count > INLINE_SEGMENTS) != (request.table != 0) {
        return Err(status::INVALID);
    }
    let unused = if count > INLINE_SEGMENTS { 0 } else { count };
    if request.segment.iter().skip(unused).any(|segment| *segment != Segment::default()) {
        return Err(status::INVALID);
    }
    let is_change = matches!(request.op, op::WRITE | op::DISCARD | op::WRITE_ZEROES);
    if is_change && limits.is_read_only {
        return Err(status::READ_ONLY);
    }
    let limit = match request.op {
        op::READ | op::WRITE => limits.max_sectors,
        op::FLUSH if request.sector == 0 && request.sectors == 0 && count == 0 => return Ok(Segments::Inline(0)),
        op::FLUSH => return Err(status::INVALID),
        op::DISCARD if limits.features & feature::DISCARD != 0 => limits.max_discard,
        op::WRITE_ZEROES if limits.features & feature::WRITE_ZEROES != 0 => limits.max_zeroes,
        _ => return Err(status::UNSUPPORTED),
    };
    if request.sectors == 0 || request.sectors > limit || is_data == (count == 0) {
        return Err(status::INVALID);
    }
    if count > MAX_SEGMENTS || count > limits.max_segments as usize {
        return Err(status::INVALID);
    }
    match request.sector.checked_add(u64::from(request.sectors)) {
        Some(end) if end <= limits.sectors => {}
        _ => return Err(status::RANGE),
    }
    if count > INLINE_SEGMENTS {
        return Ok(Segments::Table(request.table as usize, count));
    }
    Ok(Segments::Inline(count))
}

/// Whether a table of segments is where one may be.
pub fn table_is_inside(shape: &Shape, offset: usize, count: usize) -> bool {
    let end = offset.checked_add(count * size_of::<Segment>());
    offset >= shape.data && offset.is_multiple_of(8) && end.is_some_and(|end| end <= shape.data + shape.data_bytes)
}

/// Checks segments: each inside the data area, whole sectors, and all together as long as the request says.
///
/// # Errors
/// `INVALID`.
pub fn check_segments(segments: &[Segment], sectors: u32, shape: &Shape) -> Result<(), u32> {
    let mut total = 0_u64;
    for segment in segments {
        let (offset, bytes) = (u64::from(segment.offset), u64::from(segment.bytes));
        let is_whole = offset.is_multiple_of(SECTOR) && bytes.is_multiple_of(SECTOR) && bytes > 0;
        let is_inside = offset >= shape.data as u64 && offset + bytes <= (shape.data + shape.data_bytes) as u64;
        if !is_whole || !is_inside {
            return Err(status::INVALID);
        }
        total += bytes;
    }
    if total == u64::from(sectors) * SECTOR { Ok(()) } else { Err(status::INVALID) }
}

#[cfg(test)]
mod tests {
    use super::{Limits, Segments, check, check_segments, table_is_inside};
    use portico_abi::device::block::{Request, Segment, op, shape, status};
    use proptest::prelude::{any, prop_assert, proptest};

    const LIMITS: Limits = Limits {
        sectors: 1000,
        is_read_only: false,
        features: 1,
        max_sectors: 256,
        max_segments: 16,
        max_discard: 500,
        max_zeroes: 0,
    };

    fn read(sector: u64, sectors: u32, count: u16) -> Request {
        let mut request = Request { op: op::READ, segments: count, sector, sectors, ..Request::default() };
        for segment in request.segment.iter_mut().take(usize::from(count)) {
            *segment = Segment { offset: 8192, bytes: 512 };
        }
        request
    }

    #[test]
    fn what_makes_sense_passes() {
        assert_eq!(check(&read(999, 1, 1), &LIMITS), Ok(Segments::Inline(1)));
        let mut long = read(0, 256, 0);
        (long.segments, long.table) = (16, 8192);
        assert_eq!(check(&long, &LIMITS), Ok(Segments::Table(8192, 16)));
        let flush = Request { op: op::FLUSH, ..Request::default() };
        assert_eq!(check(&flush, &LIMITS), Ok(Segments::Inline(0)));
        let discard = Request { op: op::DISCARD, sector: 500, sectors: 500, ..Request::default() };
        assert_eq!(check(&discard, &LIMITS), Ok(Segments::Inline(0)));
    }

    #[test]
    fn what_does_not_is_refused() {
        let refused = |change: fn(&mut Request), limits: &Limits| {
            let mut request = read(0, 1, 1);
            change(&mut request);
            check(&request, limits).unwrap_err()
        };
        assert_eq!(refused(|r| r.sector = 1000, &LIMITS), status::RANGE);
        assert_eq!(refused(|r| r.sector = u64::MAX, &LIMITS), status::RANGE);
        assert_eq!(refused(|r| r.sectors = 0, &LIMITS), status::INVALID);
        assert_eq!(refused(|r| r.sectors = 257, &LIMITS), status::INVALID);
        assert_eq!(refused(|r| r.segments = 0, &LIMITS), status::INVALID);
        assert_eq!(refused(|r| r.segments = 6, &LIMITS), status::INVALID);
        assert_eq!(refused(|r| (r.segments, r.table) = (17, 8192), &LIMITS), status::INVALID);
        assert_eq!(refused(|r| r.table = 8, &LIMITS), status::INVALID);
        assert_eq!(refused(|r| r.flags = 1, &LIMITS), status::INVALID);
        assert_eq!(refused(|r| r.segment[4].bytes = 1, &LIMITS), status::INVALID);
        assert_eq!(refused(|r| r.op = 9, &LIMITS), status::UNSUPPORTED);
        assert_eq!(refused(|r| (r.op, r.segments) = (op::WRITE_ZEROES, 0), &LIMITS), status::INVALID);
        assert_eq!(
            refused(|r| *r = Request { op: op::WRITE_ZEROES, sectors: 1, ..Request::default() }, &LIMITS),
            status::UNSUPPORTED
        );
        assert_eq!(refused(|r| (r.op, r.sectors) = (op::FLUSH, 0), &LIMITS), status::INVALID);
        let read_only = Limits { is_read_only: true, ..LIMITS };
        assert_eq!(refused(|r| r.op = op::WRITE, &read_only), status::READ_ONLY);
        assert_eq!(check(&read(0, 1, 1), &read_only), Ok(Segments::Inline(1)));
    }

    proptest! {
        /// Whatever a guest writes: what passes stays inside the disk and the data area.
        #[test]
        fn what_passes_is_inside(raw in any::<[u64; 8]>(), small in any::<bool>(), pages in 8_u64..300) {
            let shape = shape(pages).unwrap();
            let mut bytes = [0_u8; 64];
            for (to, word) in bytes.chunks_exact_mut(8).zip(raw) {
                to.copy_from_slice(&word.to_le_bytes());
            }
            let mut request = Request::from_bytes(&bytes);
            if small {
                (request.op, request.flags, request.segments) = (request.op % 5, 0, request.segments % 8);
                (request.sector, request.sectors) = (request.sector % 1010, request.sectors % 300);
                for segment in &mut request.segment {
                    *segment = Segment { offset: (segment.offset % 2_000_000) & !511, bytes: (segment.bytes % 16384) & !511 };
                }
            }
            if let Ok(segments) = check(&request, &LIMITS) {
                prop_assert!(request.sector + u64::from(request.sectors) <= 1000);
                match segments {
                    Segments::Inline(count) => {
                        let list = &request.segment[..count];
                        if check_segments(list, request.sectors, &shape).is_ok() {
                            for segment in list {
                                prop_assert!(segment.offset as usize >= shape.data);
                                prop_assert!((segment.offset + segment.bytes) as usize <= shape.data + shape.data_bytes);
                            }
                        }
                    }
                    Segments::Table(offset, count) => {
                        prop_assert!(count <= 16);
                        if table_is_inside(&shape, offset, count) {
                            prop_assert!(offset + count * 8 <= shape.data + shape.data_bytes);
                        }
                    }
                }
            }
        }
    }
}
