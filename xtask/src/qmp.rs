//! QEMU's machine protocol: a few commands to a machine that runs.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// A connection.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects to the socket of a machine.
    ///
    /// # Errors
    /// If nobody listens, or it is not QEMU.
    pub fn connect(socket: &Path) -> Result<Qmp> {
        let stream = UnixStream::connect(socket).with_context(|| format!("connecting to {}", socket.display()))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let reader = BufReader::new(stream.try_clone()?);
        let mut qmp = Qmp { stream, reader };
        if qmp.receive()?.get("QMP").is_none() {
            bail!("{} is not QEMU's", socket.display());
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Executes a command and returns its answer.
    ///
    /// # Errors
    /// If QEMU refuses it or does not answer.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let line = json!({ "execute": command, "arguments": arguments }).to_string();
        self.stream.write_all(line.as_bytes())?;
        self.stream.write_all(b"\n")?;
        loop {
            let mut answer = self.receive()?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                bail!("{command}: {}", error.get("desc").and_then(Value::as_str).unwrap_or("refused"));
            }
            // Anything else is an event.
        }
    }

    /// Waits for an event, and returns what comes with it.
    ///
    /// # Errors
    /// If QEMU says nothing for a while.
    pub fn event(&mut self, name: &str) -> Result<Value> {
        loop {
            let mut message = self.receive().with_context(|| format!("waiting for {name}"))?;
            if message.get("event").and_then(Value::as_str) == Some(name) {
                return Ok(message.get_mut("data").map(Value::take).unwrap_or_default());
            }
        }
    }

    /// Reads physical memory.
    ///
    /// # Errors
    /// If QEMU refuses.
    pub fn read_memory(&mut self, address: u64, size: u64) -> Result<Vec<u8>> {
        let file = tempfile::NamedTempFile::new()?;
        self.execute("pmemsave", json!({ "val": address, "size": size, "filename": file.path() }))?;
        let data = std::fs::read(file.path())?;
        if data.len() as u64 != size {
            bail!("QEMU gave {} bytes of {size}", data.len());
        }
        Ok(data)
    }

    /// Receives a line.
    fn receive(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            bail!("QEMU hung up");
        }
        Ok(serde_json::from_str(&line)?)
    }
}
