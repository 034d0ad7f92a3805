//! Registers of an SD host controller. (HOST, "SD Host Standard Register")

/// A register, or several that share a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Register {
    /// Block size, block count.
    Block = 0x04,
    /// Argument of the next command.
    Argument = 0x08,
    /// Transfer mode, command. A write begins the command.
    Command = 0x0c,
    /// Response, bits 0 to 31.
    Response0 = 0x10,
    /// Bits 32 to 63.
    Response1 = 0x14,
    /// Bits 64 to 95.
    Response2 = 0x18,
    /// Bits 96 to 127, and the response of a CMD12 that the controller sent itself.
    Response3 = 0x1c,
    /// Buffer data port.
    Data = 0x20,
    /// Present state.
    Present = 0x24,
    /// Host control 1, power control, block gap control, wake-up control.
    Control = 0x28,
    /// Clock control, timeout control, software reset.
    Clock = 0x2c,
    /// Interrupt status, normal and error. Ones clear.
    Status = 0x30,
    /// Which of them show.
    StatusEnable = 0x34,
    /// Which of them interrupt.
    SignalEnable = 0x38,
    /// Capabilities.
    Capabilities = 0x40,
    /// Slot interrupt status, version.
    Version = 0xfc,
}

/// Bytes of the registers.
pub const BYTES: usize = 0x100;

/// What reaches a controller.
pub trait Io {
    /// Reads a register.
    fn read(&self, register: Register) -> u32;
    /// Writes one.
    fn write(&mut self, register: Register, value: u32);
    /// A time in microseconds.
    fn now_us(&self) -> u64;
}

/// Bits of [`Register::Command`], lower half: the transfer mode.
pub mod mode {
    /// The block count is counted down.
    pub const COUNT: u32 = 1 << 1;
    /// The controller sends CMD12 at the end.
    pub const AUTO_STOP: u32 = 1 << 2;
    /// From the card.
    pub const READ: u32 = 1 << 4;
    /// More than one block.
    pub const MULTIPLE: u32 = 1 << 5;
}

/// Bits of [`Register::Command`], upper half.
pub mod command {
    /// Response of 136 bits.
    pub const LONG: u32 = 1 << 16;
    /// Response of 48 bits.
    pub const SHORT: u32 = 2 << 16;
    /// The same, and the card may be busy then.
    pub const SHORT_BUSY: u32 = 3 << 16;
    /// The response's CRC is checked.
    pub const CRC: u32 = 1 << 19;
    /// The response's index is checked.
    pub const INDEX: u32 = 1 << 20;
    /// Data follows.
    pub const DATA: u32 = 1 << 21;
    /// It ends a transfer.
    pub const ABORT: u32 = 3 << 22;
    /// Where the command's index stands.
    pub const INDEX_SHIFT: u32 = 24;
}

/// Bits of [`Register::Present`].
pub mod present {
    /// No command may begin.
    pub const COMMAND_INHIBIT: u32 = 1 << 0;
    /// None that uses the data lines.
    pub const DATA_INHIBIT: u32 = 1 << 1;
    /// A block may be written to the buffer.
    pub const WRITE_READY: u32 = 1 << 10;
    /// A block may be read from it.
    pub const READ_READY: u32 = 1 << 11;
    /// The card's switch allows writes.
    pub const WRITABLE: u32 = 1 << 19;
    /// Level of the first data line: low while the card is busy.
    pub const DATA0: u32 = 1 << 20;
}

/// Bits of [`Register::Control`].
pub mod control {
    /// Four data lines.
    pub const FOUR_LINES: u32 = 1 << 1;
    /// Up to 50 MHz.
    pub const HIGH_SPEED: u32 = 1 << 2;
    /// Power, 3.3 V.
    pub const POWER: u32 = 0xf << 8;
}

/// Bits of [`Register::Clock`].
pub mod clock {
    /// The controller's own clock.
    pub const INTERNAL: u32 = 1 << 0;
    /// It is stable.
    pub const STABLE: u32 = 1 << 1;
    /// The card's clock.
    pub const CARD: u32 = 1 << 2;
    /// The longest data timeout.
    pub const LONGEST: u32 = 0xe << 16;
    /// Resets everything.
    pub const RESET_ALL: u32 = 1 << 24;
    /// Resets what commands need, and what data needs.
    pub const RESET_LINES: u32 = 3 << 25;
}

/// Bits of [`Register::Status`].
pub mod status {
    /// A command has ended.
    pub const COMMAND: u32 = 1 << 0;
    /// A transfer has ended, or a card is not busy any more.
    pub const TRANSFER: u32 = 1 << 1;
    /// The buffer takes a block.
    pub const WRITE_READY: u32 = 1 << 4;
    /// The buffer has a block.
    pub const READ_READY: u32 = 1 << 5;
    /// No response.
    pub const NO_RESPONSE: u32 = 1 << 16;
    /// All errors that a controller without DMA has: of commands, of data, and of its own CMD12.
    pub const ERRORS: u32 = 0x017f_0000;
    /// All that is of interest.
    pub const ALL: u32 = COMMAND | TRANSFER | WRITE_READY | READ_READY | ERRORS;
}

/// Bits of [`Register::Capabilities`].
pub mod capability {
    /// High speed.
    pub const HIGH_SPEED: u32 = 1 << 21;
}
