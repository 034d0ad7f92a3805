//! Where the service finds its windows, and what is where in the desk. Manager and service agree on this.

use portico_abi::channel::console::WINDOW_BYTES;

/// Most guests, dead ones and services included.
pub const MAX_SOURCES: usize = 256;
/// IPA of the desk in the service.
pub const DESK_IPA: u64 = 0x0a00_0000;
/// IPA of the box between manager and service: laid out as a console window, where the manager is the guest.
pub const BOX_IPA: u64 = 0x0a10_0000;
/// Bytes of the box.
pub const BOX_BYTES: usize = WINDOW_BYTES;
const CONSOLES: u64 = 0x0b00_0000;
const CONSOLE_STRIDE: u64 = 0x8000;
const HISTORIES: u64 = 0x0c00_0000;
/// Bytes of the history of one guest: a power of two.
pub const HISTORY_BYTES: usize = 16 << 10;

/// IPA of a guest's console window in the service.
pub const fn console_ipa(source: usize) -> u64 {
    CONSOLES + source as u64 * CONSOLE_STRIDE
}

/// IPA of a guest's history in the service.
pub const fn history_ipa(source: usize) -> u64 {
    HISTORIES + source as u64 * HISTORY_BYTES as u64
}

/// The cookie of the port of a guest's console in the service's table.
pub const fn cookie(source: usize) -> u64 {
    u64::from_le_bytes(*b"console\0") ^ (source as u64) << 56
}

/// The guest whose console has this cookie.
pub const fn source_of(cookie: u64) -> Option<usize> {
    let rest = cookie ^ u64::from_le_bytes(*b"console\0");
    if rest & 0x00ff_ffff_ffff_ffff == 0 { Some((rest >> 56) as usize) } else { None }
}

/// Bytes of the desk.
pub const DESK_BYTES: usize = LOG + LOG_BYTES as usize;

/// `"PDSK"` as soon as an instance has begun the desk.
pub const MAGIC: usize = 0;
/// The value of [`MAGIC`].
pub const MAGIC_VALUE: u32 = u32::from_le_bytes(*b"PDSK");
/// Which of the two states holds: 0 or 1.
pub const HOLDS: usize = 4;
/// Where `SENT` will be when the UART has all that it is being given now; equal to it while it is given nothing.
pub const SENDING: usize = 8;
/// Bytes of the output ring that the UART has taken.
pub const SENT: usize = 12;
/// The line that is being typed.
pub const LINE: usize = 128;
/// Its room.
pub const LINE_BYTES: usize = 256;
/// The first state, and the second behind it.
pub const STATES: usize = 512;
/// Bytes of a state: numbers of 32 bits, those from [`OUT_HEAD`] to [`INPUT`].
pub const STATE_BYTES: usize = 96;

/// In a state: bytes ever put into the output ring.
pub const OUT_HEAD: usize = 0;
/// Bytes ever put into the log of all guests and of the manager.
pub const LOG_HEAD: usize = 4;
/// Lines ever put into it.
pub const LOG_LINES: usize = 8;
/// 0: the manager has the keyboard; n + 1: guest n.
pub const FOCUS: usize = 12;
/// The guest that had it last, plus 1.
pub const LAST: usize = 16;
/// `LOG_HEAD` when a guest got the keyboard.
pub const UNSEEN: usize = 20;
/// `LOG_LINES` at that time.
pub const UNSEEN_LINES: usize = 24;
/// What is with the prompt.
pub const PROMPT: usize = 28;
/// Kept lines are being shown: what for, see `mux`.
pub const JOB: usize = 32;
/// From which ring: 0 the log, n + 1 the history of guest n.
pub const JOB_RING: usize = 36;
/// Where the next line begins.
pub const JOB_AT: usize = 40;
/// Where the last one ends.
pub const JOB_END: usize = 44;
/// The guest that it is about, plus 1.
pub const JOB_SOURCE: usize = 48;
/// The guest that gets the keyboard when they were shown, plus 1.
pub const JOB_NEXT: usize = 52;
/// Bytes of the line that is being typed.
pub const LINE_LEN: usize = 56;
/// `tail` of what the manager says.
pub const INBOX: usize = 60;
/// `head` of what the manager is told.
pub const OUTBOX: usize = 64;
/// The guest to which the rest belongs, plus 1; 0: it means nothing.
pub const SOURCE: usize = 68;
/// Its [`ENTRY_HEAD`].
pub const HEAD: usize = 72;
/// Its [`ENTRY_OPEN`].
pub const OPEN: usize = 76;
/// `tail` of its output ring.
pub const TAIL: usize = 80;
/// `head` of its input ring.
pub const INPUT: usize = 84;

/// The table of guests, by number.
pub const TABLE: usize = 4096;
/// Bytes of an entry: name, kind, and words of the service.
pub const ENTRY_BYTES: usize = 32;
/// In an entry: 0 for nobody, [`GUEST`] or [`SERVICE`]. Written by the manager, after the name and when the windows are there.
pub const ENTRY_KIND: usize = 16;
/// In an entry: bytes ever put into its history.
pub const ENTRY_HEAD: usize = 20;
/// In an entry: bytes of its last line in the history, as long as that has no end.
pub const ENTRY_OPEN: usize = 24;
/// Bytes of a name.
pub const NAME_BYTES: usize = 16;
/// A guest.
pub const GUEST: u32 = 1;
/// A service.
pub const SERVICE: u32 = 2;
/// Bytes for the terminal.
pub const OUT: usize = TABLE + MAX_SOURCES * ENTRY_BYTES;
/// Room for so many: a power of two.
pub const OUT_BYTES: u32 = 16 << 10;
/// Kept lines of all.
pub const LOG: usize = OUT + OUT_BYTES as usize;
/// Room for so many: a power of two.
pub const LOG_BYTES: u32 = 64 << 10;

const _: () = assert!(STATES + 2 * STATE_BYTES <= TABLE && LINE + LINE_BYTES <= STATES && INPUT < STATE_BYTES);
const _: () = assert!(WINDOW_BYTES as u64 <= CONSOLE_STRIDE && DESK_BYTES.is_multiple_of(4096));
