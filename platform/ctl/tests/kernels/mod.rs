//! Kernel files, good and bad, that the tests name as `test:NAME`.

use std::path::PathBuf;
use tempfile::TempDir;

/// A folder full of kernels.
pub struct Kernels {
    folder: TempDir,
}

/// The head of an ELF file: class, byte order, type, machine, then one `PT_LOAD` segment.
fn elf(class: u8, order: u8, kind: u16, machine: u16, paddr: u64, memory: u64) -> Vec<u8> {
    let data = b"\xc0\x03\x5f\xd6";
    let mut file = vec![0; 120];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &[0x7f, b'E', b'L', b'F', class, order, 1]);
    put(16, &kind.to_le_bytes());
    put(18, &machine.to_le_bytes());
    put(20, &1u32.to_le_bytes());
    put(24, &paddr.to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(52, &64u16.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &1u16.to_le_bytes());
    put(64, &1u32.to_le_bytes());
    put(68, &5u32.to_le_bytes());
    put(72, &120u64.to_le_bytes());
    put(80, &paddr.to_le_bytes());
    put(88, &paddr.to_le_bytes());
    put(96, &(data.len() as u64).to_le_bytes());
    put(104, &memory.to_le_bytes());
    file.extend_from_slice(data);
    file
}

/// An arm64 `Image` that says it needs `memory` bytes.
pub fn image(memory: u64) -> Vec<u8> {
    let mut file = vec![0; 256];
    file[16..24].copy_from_slice(&memory.to_le_bytes());
    file[56..60].copy_from_slice(b"ARM\x64");
    file
}

impl Kernels {
    /// Writes them all.
    pub fn new() -> Self {
        const RAM: u64 = 0x4000_0000;
        let good = elf(2, 1, 2, 183, RAM, 0x1000);
        let mut interpreted = good.clone();
        interpreted[64] = 3;
        let files: &[(&str, Vec<u8>)] = &[
            ("truncated-elf", good[..100].to_vec()),
            ("segment-past-end", elf(2, 1, 2, 183, RAM, 64 << 20)),
            ("segment-below-ram", elf(2, 1, 2, 183, 0x8_0000, 0x1000)),
            ("segment-wraps", elf(2, 1, 2, 183, u64::MAX - 0xfff, 0x2000)),
            ("x86-elf", elf(2, 1, 2, 62, RAM, 0x1000)),
            ("arm32-elf", elf(1, 1, 2, 40, RAM, 0x1000)),
            ("unknown-elf", elf(2, 1, 2, 9999, RAM, 0x1000)),
            ("object", elf(2, 1, 1, 183, RAM, 0x1000)),
            ("program", interpreted),
            ("console", good.clone()),
            ("good", good),
            ("image", image(0x10_0000)),
            ("big-image", image(32 << 20)),
            ("text", b"#!/bin/sh\necho this is not a kernel at all, whatever its name may say\n".to_vec()),
            ("gzip", b"\x1f\x8b\x08\0".to_vec()),
            ("xz", b"\xfd7zXZ\0".to_vec()),
            ("zstd", b"\x28\xb5\x2f\xfd".to_vec()),
            ("zboot", b"MZ\0\0zimg".to_vec()),
            ("uimage", b"\x27\x05\x19\x56".to_vec()),
            ("empty", Vec::new()),
            ("big-disk", vec![1; 9 << 20]),
            ("disk", vec![1; 5000]),
        ];
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        Kernels { folder }
    }

    /// Finds `test:NAME`, and the console service.
    pub fn resolver(&self) -> impl Fn(&str, &str) -> Result<PathBuf, String> + use<> {
        let folder = self.folder.path().to_path_buf();
        move |scheme, name| {
            let path = folder.join(name);
            // Every system has the console service.
            let is_known = scheme == "test" || (scheme, name) == ("service", "console");
            if is_known && path.is_file() { Ok(path) } else { Err(String::from("write `test:good`")) }
        }
    }
}
