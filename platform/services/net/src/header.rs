//! The first bytes of a frame. (IEEE 802.3, "MAC frame"; IEEE 802.1Q, "VLAN tag"; RFC 826)

use portico_sdk::device::frames::Head;

/// Bytes of an Ethernet header without tags.
pub const ETHERNET: usize = 14;
/// Tags that are looked behind. What has more is not forwarded: nobody could say what it is.
const MAX_TAGS: usize = 2;
/// Bytes of a tag.
const TAG: usize = 4;
/// Types of a tagged frame: of a customer's tag, and of a provider's.
const CUSTOMER_TAG: u16 = 0x8100;
const PROVIDER_TAG: u16 = 0x88a8;
/// Types that carry hardware addresses.
const ARP: u16 = 0x0806;
const REVERSE_ARP: u16 = 0x8035;
/// The 48 bits of an address.
const ADDRESS: u64 = 0xffff_ffff_ffff;
/// Where the sender's address is in an ARP message, and where it ends in one for Ethernet and IPv4.
const ARP_SENDER: usize = 8;
const ARP_BYTES: usize = 28;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(u64);

impl Mac {
    /// Of its bytes.
    pub const fn new(bytes: [u8; 6]) -> Mac {
        let [a, b, c, d, e, f] = bytes;
        Mac(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }

    /// The six bytes at `at`. `None` if the head ends before.
    fn at(head: &Head, at: usize) -> Option<Mac> {
        head.bytes().get(at..at + 6)?.first_chunk().map(|bytes| Mac::new(*bytes))
    }

    /// As a number of 48 bits.
    #[inline]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// Whether it names a group, or everyone.
    #[inline]
    pub const fn is_group(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether it is one of those that no bridge forwards: 01:80:C2:00:00:00 to 0F. (IEEE 802.1Q, "Reserved addresses")
    #[inline]
    pub const fn is_reserved(self) -> bool {
        self.0 & 0xf0ff_ffff_ffff == Mac::new([1, 0x80, 0xc2, 0, 0, 0]).0
    }
}

/// What is read of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// To whom.
    pub destination: Mac,
    /// From whom, it says.
    pub source: Mac,
    /// From whom its ARP message says to be, if it is one.
    pub arp_sender: Option<Mac>,
}

impl Header {
    /// Reads the head of a frame of `bytes` bytes. `None` if it is too short for what it says to be, or has more tags than are looked behind.
    #[inline]
    pub fn read(head: &Head, bytes: usize) -> Option<Header> {
        if bytes < ETHERNET {
            return None;
        }
        // Two addresses and the type, of which the frame has the first byte in the lowest.
        let (first, second) = (head.word::<0>(), head.word::<1>());
        let destination = Mac(first & ADDRESS);
        let source = Mac(first >> 48 | (second << 16 & ADDRESS));
        let kind = ((second >> 32) as u16).swap_bytes();
        let arp_sender = if matches!(kind, CUSTOMER_TAG | PROVIDER_TAG | ARP | REVERSE_ARP) {
            arp_sender(head, bytes, kind)?
        } else {
            None
        };
        Some(Header { destination, source, arp_sender })
    }
}

/// From whom an ARP message says to be, behind tags too; `Some(None)` if the frame is none. `None` as [`Header::read`].
fn arp_sender(head: &Head, bytes: usize, kind: u16) -> Option<Option<Mac>> {
    let mut kind = kind;
    let mut end = ETHERNET;
    for _ in 0..=MAX_TAGS {
        match kind {
            CUSTOMER_TAG | PROVIDER_TAG => end += TAG,
            ARP | REVERSE_ARP if bytes < end + ARP_BYTES => return None,
            ARP | REVERSE_ARP => return Mac::at(head, end + ARP_SENDER).map(Some),
            _ => return Some(None),
        }
        if bytes < end {
            return None;
        }
        kind = u16::from_be_bytes(*head.bytes().get(end - 2..end)?.first_chunk()?);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Head, Header, Mac};
    use portico_sdk::device::frames::HEAD;

    const A: [u8; 6] = [2, 0xaa, 0xbb, 0xcc, 0xdd, 0xee];
    const B: [u8; 6] = [2, 1, 2, 3, 4, 5];

    fn frame(parts: &[&[u8]]) -> (Head, usize) {
        let bytes = parts.concat();
        let mut head = [0; HEAD];
        let len = bytes.len().min(HEAD);
        head[..len].copy_from_slice(&bytes[..len]);
        (Head::from_bytes(&head), bytes.len())
    }

    #[test]
    fn addresses_are_read() {
        let (head, bytes) = frame(&[&A, &B, &[8, 0], &[0; 46]]);
        let header = Header::read(&head, bytes).unwrap();
        assert_eq!((header.destination, header.source, header.arp_sender), (Mac::new(A), Mac::new(B), None));
        assert_eq!(Header::read(&head, 13), None);
        assert!(Header::read(&head, 14).is_some());
    }

    #[test]
    fn arp_is_looked_into_behind_tags_too() {
        let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &A, &[10, 0, 0, 1], &[0; 10]].concat();
        for tags in [&[][..], &[0x81, 0, 0, 5], &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6]] {
            for kind in [[8, 6], [0x80, 0x35]] {
                let (head, bytes) = frame(&[&[0xff; 6], &B, tags, &kind, &arp]);
                assert_eq!(Header::read(&head, bytes).unwrap().arp_sender, Some(Mac::new(A)));
                assert_eq!(Header::read(&head, bytes - 1), None, "cut off");
            }
        }
        let (head, bytes) = frame(&[&A, &B, &[0x81, 0, 0, 1, 0x81, 0, 0, 1, 0x81, 0, 0, 1], &[8, 6], &arp]);
        assert_eq!(Header::read(&head, bytes), None, "three tags");
        let (head, _) = frame(&[&A, &B, &[0x81, 0]]);
        assert_eq!(Header::read(&head, 14), None, "a tag that is cut off");
    }

    #[test]
    fn groups_and_reserved_addresses_are_known() {
        assert!(
            Mac::new([0xff; 6]).is_group() && Mac::new([1, 0, 0x5e, 0, 0, 1]).is_group() && !Mac::new(A).is_group()
        );
        for last in 0..=255 {
            assert_eq!(Mac::new([1, 0x80, 0xc2, 0, 0, last]).is_reserved(), last < 16);
        }
        assert!(!Mac::new([1, 0x80, 0xc2, 0, 1, 0]).is_reserved() && !Mac::new([0; 6]).is_reserved());
    }
}
