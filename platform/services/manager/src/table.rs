//! Tables and quantities for people.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Lays rows out in columns, the first row being the heading. Columns whose number is in `right` are set flush right.
pub fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let cell = if right.contains(&column) { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") };
            line.push_str(&cell);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A number of pages as `64M`, `1.5G` or `20K`.
pub fn pages(pages: u64) -> String {
    let kib = pages.saturating_mul(4);
    match kib {
        0..1024 => format!("{kib}K"),
        1024..1_048_576 if kib.is_multiple_of(1024) => format!("{}M", kib / 1024),
        1024..1_048_576 => format!("{}.{}M", kib / 1024, kib % 1024 * 10 / 1024),
        _ if kib.is_multiple_of(1_048_576) => format!("{}G", kib / 1_048_576),
        _ => format!("{}.{}G", kib / 1_048_576, kib % 1_048_576 * 10 / 1_048_576),
    }
}

/// A number of bytes as `512`, `20K` or `1.5M`.
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes}"),
        1024..1_048_576 => format!("{}.{}K", bytes / 1024, bytes % 1024 * 10 / 1024),
        1_048_576..1_073_741_824 => format!("{}.{}M", bytes >> 20, (bytes >> 10) % 1024 * 10 / 1024),
        _ => format!("{}.{}G", bytes >> 30, (bytes >> 20) % 1024 * 10 / 1024),
    }
}

/// A time as `12.3s`, `4m05s` or `2h13m`.
pub fn duration(ns: u64) -> String {
    let tenths = ns / 100_000_000;
    let seconds = tenths / 10;
    match seconds {
        0..60 => format!("{seconds}.{}s", tenths % 10),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86400, seconds / 3600 % 24),
    }
}

/// `part` of `whole` as `12.3%`; empty if there is no whole.
pub fn percent(part: u64, whole: u64) -> String {
    let permille = u128::from(part) * 1000;
    match permille.checked_div(u128::from(whole)) {
        Some(permille) => format!("{}.{}%", permille / 10, permille % 10),
        None => String::new(),
    }
}

/// A mask of processors as `0,2-3`; `all` for none.
pub fn cpu_list(mask: u64) -> String {
    if mask == 0 {
        return String::from("all");
    }
    let mut parts: Vec<String> = Vec::new();
    let mut cpu = 0;
    while cpu < 64 {
        if mask >> cpu & 1 == 0 {
            cpu += 1;
            continue;
        }
        let first = cpu;
        while cpu + 1 < 64 && mask >> (cpu + 1) & 1 == 1 {
            cpu += 1;
        }
        parts.push(if first == cpu { format!("{first}") } else { format!("{first}-{cpu}") });
        cpu += 1;
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::{bytes, cpu_list, duration, pages, percent, table};

    #[test]
    fn quantities_read_well() {
        assert_eq!([bytes(0), bytes(2048), bytes(1_572_864)], ["0", "2.0K", "1.5M"]);
        assert_eq!([pages(5), pages(256), pages(400), pages(1 << 18)], ["20K", "1M", "1.5M", "1G"]);
        assert_eq!(duration(1_250_000_000), "1.2s");
        assert_eq!(duration(245_000_000_000), "4m05s");
        assert_eq!(duration(8_000_000_000_000), "2h13m");
        assert_eq!([percent(1, 3), percent(1, 0), percent(3, 2)], ["33.3%", "", "150.0%"]);
        assert_eq!([cpu_list(0), cpu_list(0b1101), cpu_list(u64::MAX)], ["all", "0,2-3", "0-63"]);
    }

    #[test]
    fn columns_line_up() {
        let rows = [["name", "n"], ["a", "10"], ["longer", "2"]].map(|row| row.map(Into::into).into());
        assert_eq!(table(&rows, &[1]), "name     n\na       10\nlonger   2\n");
    }
}
