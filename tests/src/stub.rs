//! QEMU's stub for debuggers, as far as tests need it. (GDB's manual, "GDB Remote Serial Protocol")

use std::io::{BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// A connection. The machine stands still from the first packet until [`Stub::resume`].
#[derive(Debug)]
pub struct Stub {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Stub {
    /// Connects to a socket.
    ///
    /// # Errors
    /// If nobody listens.
    pub fn connect(socket: &Path) -> Result<Stub> {
        let stream = UnixStream::connect(socket).with_context(|| format!("connecting to {}", socket.display()))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Stub { reader: BufReader::new(stream.try_clone()?), stream })
    }

    /// Writes to physical memory, and nobody asks who may.
    ///
    /// # Errors
    /// If the stub refuses.
    pub fn write_physical(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        self.command("Qqemu.PhyMemMode:1")?;
        let data: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.command(&format!("M{address:x},{:x}:{data}", bytes.len()))
    }

    /// Lets the machine run on, and hangs up.
    ///
    /// # Errors
    /// If the stub refuses.
    pub fn resume(mut self) -> Result<()> {
        self.command("D")
    }

    /// Sends a command whose answer is OK.
    fn command(&mut self, text: &str) -> Result<()> {
        let sum = text.bytes().fold(0_u8, u8::wrapping_add);
        write!(self.stream, "${text}#{sum:02x}")?;
        let answer = self.answer()?;
        ensure!(answer == "OK", "the stub answers `{answer}` to {text}");
        Ok(())
    }

    /// Reads a packet, and says that it came.
    fn answer(&mut self) -> Result<String> {
        // Before it stands the acknowledgement of ours.
        while self.byte()? != b'$' {}
        let mut text = String::new();
        loop {
            match self.byte()? {
                b'#' => break,
                byte => text.push(char::from(byte)),
            }
        }
        let _sum = (self.byte()?, self.byte()?);
        self.stream.write_all(b"+")?;
        Ok(text)
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.reader.read_exact(&mut byte)?;
        Ok(byte[0])
    }
}
