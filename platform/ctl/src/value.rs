//! Values with units: sizes, times, lists of processors, shares of a processor.
//!
//! Each parser returns what to say (after the name of the key) and what to write instead.

use crate::section::Scalar;
use portico_abi::PAGE_SIZE;
use portico_bundle::description::SECTOR_BYTES;

/// Message and help.
pub(crate) type Wrong = (String, String);

fn wrong<T>(message: impl Into<String>, help: impl Into<String>) -> Result<T, Wrong> {
    Err((message.into(), help.into()))
}

/// What a size may look like.
pub(crate) const SIZE_HELP: &str = "write a size such as \"64M\" or \"1G\"";

/// Parses a size: text with the unit K, M or G (`KiB` and `KB` mean the same: 1024 bytes), or a number of MiB as in
/// xl.cfg. The result is in bytes and a multiple of the page size.
pub(crate) fn size(value: Scalar<'_>) -> Result<u64, Wrong> {
    let bytes = match value {
        Scalar::Integer(mib) => u64::try_from(mib).ok().and_then(|mib| mib.checked_mul(1 << 20)),
        Scalar::Float(_) => return wrong("is a float", SIZE_HELP),
        Scalar::Text(text) => bytes(text, SIZE_HELP)?,
    };
    match bytes {
        Some(0) => wrong("is 0", SIZE_HELP),
        Some(bytes) if !bytes.is_multiple_of(PAGE_SIZE) => {
            let help = format!("write \"{}K\"", bytes.next_multiple_of(PAGE_SIZE) >> 10);
            wrong("is not a multiple of 4K", help)
        }
        Some(bytes) => Ok(bytes),
        None => wrong("is out of range", SIZE_HELP),
    }
}

/// Parses text with the unit K, M or G into bytes; `None` if those are too many.
fn bytes(text: &str, what: &str) -> Result<Option<u64>, Wrong> {
    let (digits, unit) = split_unit(text);
    if digits.is_empty() {
        return wrong(format!("is \"{text}\", which is not a size"), what);
    }
    let shift = match unit.to_ascii_lowercase().as_str() {
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "" => {
            let help = format!("write \"{digits}K\", \"{digits}M\" or \"{digits}G\"");
            return wrong(format!("is \"{text}\", without a unit"), help);
        }
        _ => {
            let help = format!("write \"{digits}K\", \"{digits}M\" or \"{digits}G\"");
            return wrong(format!("has the unknown unit `{unit}`"), help);
        }
    };
    Ok(digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift)))
}

/// Parses a place on a disk: a size, 0, or a number of sectors as in "2048s". The result is in bytes and a multiple
/// of the sector's size.
pub(crate) fn place(text: &str) -> Result<u64, Wrong> {
    const HELP: &str = "write a size such as \"1M\", or sectors such as \"2048s\"";
    let (digits, unit) = split_unit(text);
    let bytes = match unit {
        "" if digits.parse() == Ok(0) => Some(0),
        "s" => digits.parse::<u64>().ok().and_then(|sectors| sectors.checked_mul(SECTOR_BYTES)),
        _ => bytes(text, HELP)?,
    };
    bytes.map_or_else(|| wrong("is out of range", HELP), Ok)
}

/// What a rate may look like.
pub(crate) const RATE_HELP: &str = "write the bytes in a second, such as \"10M\"";

/// Parses a rate: a size, and `/s` if one likes. The result is in bytes in a second, and not 0.
pub(crate) fn rate(value: Scalar<'_>) -> Result<u64, Wrong> {
    let text = match value {
        Scalar::Text(text) => text.trim(),
        Scalar::Integer(number) => {
            let help = format!("write \"{number}K\" or \"{number}M\", which are bytes in a second");
            return wrong(format!("is {number}, without a unit"), help);
        }
        Scalar::Float(_) => return wrong("is a float", RATE_HELP),
    };
    let amount = text.strip_suffix("/s").unwrap_or(text);
    let (digits, unit) = split_unit(amount);
    if let (Some(prefix @ ("k" | "K" | "m" | "M" | "g" | "G")), Ok(bits)) =
        (unit.strip_suffix('b'), digits.parse::<u64>())
    {
        let help = format!("write the bytes in a second: \"{}{}\"", (bits / 8).max(1), prefix.to_uppercase());
        return wrong(format!("is \"{text}\", which are bits"), help);
    }
    match bytes(amount, RATE_HELP)? {
        Some(0) => wrong("is 0", format!("{RATE_HELP}, or leave it out for no limit")),
        Some(rate) => Ok(rate),
        None => wrong("is out of range", RATE_HELP),
    }
}

/// What a MAC address may look like.
pub(crate) const MAC_HELP: &str = "write six pairs of hexadecimal digits, such as \"02:00:00:00:00:01\"";

/// Parses a MAC address of one station.
pub(crate) fn mac(value: Scalar<'_>) -> Result<[u8; 6], Wrong> {
    let Scalar::Text(text) = value else {
        return wrong("is a number", MAC_HELP);
    };
    let parts: Vec<&str> = text.trim().split([':', '-']).collect();
    let pair = |part: &&str| match part.len() {
        2 if part.bytes().all(|byte| byte.is_ascii_hexdigit()) => u8::from_str_radix(part, 16).ok(),
        _ => None,
    };
    let Some(Ok(mac)) = parts.iter().map(pair).collect::<Option<Vec<u8>>>().map(<[u8; 6]>::try_from) else {
        return wrong(format!("is \"{text}\", which is not a MAC address"), MAC_HELP);
    };
    let [first, ..] = mac;
    if first & 1 != 0 {
        let single = format_mac([first & !1 | 2, mac[1], mac[2], mac[3], mac[4], mac[5]]);
        return wrong(format!("is \"{text}\", the address of a group"), format!("write \"{single}\""));
    }
    if mac == [0; 6] {
        return wrong("is 0", MAC_HELP);
    }
    Ok(mac)
}

/// Formats a MAC address.
pub(crate) fn format_mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// What a time may look like.
pub(crate) const TIME_HELP: &str = "write a time such as \"500us\", \"10ms\" or \"60s\"";

/// Parses a time, text with the unit us, ms or s. The result is in microseconds and not 0.
pub(crate) fn time_us(value: Scalar<'_>) -> Result<u64, Wrong> {
    let text = match value {
        Scalar::Text(text) => text,
        Scalar::Integer(number) => {
            let help = format!("write \"{number}us\", \"{number}ms\" or \"{number}s\"");
            return wrong(format!("is {number}, without a unit"), help);
        }
        Scalar::Float(_) => return wrong("is a float", TIME_HELP),
    };
    let (digits, unit) = split_unit(text);
    let factor = match unit {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "" if !digits.is_empty() => {
            let help = format!("write \"{digits}us\", \"{digits}ms\" or \"{digits}s\"");
            return wrong(format!("is \"{text}\", without a unit"), help);
        }
        _ => return wrong(format!("is \"{text}\", which is not a time"), TIME_HELP),
    };
    match digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)) {
        Some(0) => wrong("is 0", TIME_HELP),
        Some(time) => Ok(time),
        None => wrong(format!("is \"{text}\", which is not a time"), TIME_HELP),
    }
}

/// Splits "64 MiB" into "64" and "MiB".
fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    (digits, unit.trim())
}

/// What a list of processors may look like.
pub(crate) const CPUS_HELP: &str = "write processors such as \"0\", \"0-3\", \"0,2\", \"0-3,^1\" or \"all\"";

/// Parses a list of processors as in xl.cfg into a mask; `all` is 0.
pub(crate) fn cpus(value: Scalar<'_>) -> Result<u64, Wrong> {
    let text = match value {
        Scalar::Text(text) => text,
        Scalar::Integer(cpu) if (0..64).contains(&cpu) => return Ok(1 << cpu),
        Scalar::Integer(cpu) => return wrong(format!("names processor {cpu}"), CPUS_HELP),
        Scalar::Float(_) => return wrong("is a float", CPUS_HELP),
    };
    if text.trim() == "all" {
        return Ok(0);
    }
    let mut mask = 0u64;
    for part in text.split(',').map(str::trim) {
        let (excluded, range) = match part.strip_prefix('^') {
            Some(range) => (true, range),
            None => (false, part),
        };
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (Ok(first), Ok(last)) = (first.trim().parse::<u32>(), last.trim().parse::<u32>()) else {
            return wrong(format!("has \"{part}\" in it, which is not a processor or range"), CPUS_HELP);
        };
        if first > last {
            return wrong(
                format!("has the range \"{part}\", which runs backwards"),
                format!("write \"{last}-{first}\""),
            );
        }
        if last > 63 {
            return wrong(format!("names processor {last}"), "write numbers below 64");
        }
        let bits = (u64::MAX >> (63 - (last - first))) << first;
        mask = if excluded { mask & !bits } else { mask | bits };
    }
    if mask == 0 {
        return wrong("leaves no processor", CPUS_HELP);
    }
    Ok(mask)
}

/// Formats a mask of processors: the reverse of [`cpus`].
pub(crate) fn format_cpus(mask: u64) -> String {
    if mask == 0 {
        return String::from("all");
    }
    let mut parts = Vec::new();
    let mut cpu = 0;
    while cpu < 64 {
        let run = (mask >> cpu).trailing_ones();
        match run {
            0 => {}
            1 => parts.push(cpu.to_string()),
            _ => parts.push(format!("{cpu}-{}", cpu + run - 1)),
        }
        cpu += run + 1;
    }
    parts.join(",")
}

/// What a cap may look like.
pub(crate) const CAP_HELP: &str =
    "write the percentage of one processor that each vCPU may use, from 0.1 to 100; 0 for no limit";

/// Parses a cap, percent of one processor, into thousandths; 0 is none.
pub(crate) fn cap_permille(value: Scalar<'_>) -> Result<u32, Wrong> {
    let percent = match value {
        Scalar::Integer(percent) => percent as f64,
        Scalar::Float(percent) => percent,
        Scalar::Text(text) => match text.trim().strip_suffix('%').unwrap_or(text).trim().parse() {
            Ok(percent) => percent,
            Err(_) => {
                return wrong(format!("is \"{text}\", which is not a percentage"), CAP_HELP);
            }
        },
    };
    if percent == 0.0 {
        return Ok(0);
    }
    if !(0.1..=100.0).contains(&percent) {
        return wrong(format!("is {percent}, out of range"), CAP_HELP);
    }
    Ok((percent * 10.0).round() as u32)
}

/// Formats a size in the largest unit that divides it.
pub(crate) fn format_size(bytes: u64) -> String {
    match bytes {
        0 => String::from("0"),
        _ if bytes.is_multiple_of(1 << 30) => format!("{}G", bytes >> 30),
        _ if bytes.is_multiple_of(1 << 20) => format!("{}M", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{}K", bytes >> 10),
        _ => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::{cap_permille, cpus, format_cpus, format_mac, format_size, mac, place, rate, size, time_us};
    use crate::section::Scalar::{Float, Integer, Text};

    #[test]
    fn sizes() {
        for (text, bytes) in [("4K", 4096), ("64M", 64 << 20), ("1 GiB", 1 << 30), ("8kb", 8192), (" 2g ", 2 << 30)] {
            assert_eq!(size(Text(text)), Ok(bytes), "{text}");
        }
        assert_eq!(size(Integer(16)), Ok(16 << 20));
        for text in ["", "M", "64", "64T", "-1M", "0M", "6K", "99999999999999999999M", "17179869184G", "1.5G"] {
            assert!(size(Text(text)).is_err(), "{text}");
        }
        assert!(size(Integer(-1)).is_err());
        assert_eq!(size(Text("6K")).unwrap_err().1, "write \"8K\"");
        assert_eq!(format_size(3 << 20), "3M");
        assert_eq!(format_size(2 << 30), "2G");
    }

    #[test]
    fn places_on_a_disk() {
        for (text, bytes) in [("0", 0), ("0K", 0), ("1K", 1024), ("3s", 1536), ("2G", 2 << 30)] {
            assert_eq!(place(text), Ok(bytes), "{text}");
        }
        for text in ["", "s", "1", "512", "1b", "18446744073709551615s", "-1M"] {
            assert!(place(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates() {
        for (text, bytes) in [("10M", 10 << 20), ("1K/s", 1024), ("1 MB/s", 1 << 20), ("2g", 2 << 30)] {
            assert_eq!(rate(Text(text)), Ok(bytes), "{text}");
        }
        for text in ["", "10", "0K", "10M/h", "10M@20ms", "/s", "99999999999999999999K"] {
            assert!(rate(Text(text)).is_err(), "{text}");
        }
        assert!(rate(Integer(1)).is_err() && rate(Float(1.0)).is_err());
        assert_eq!(rate(Text("80Mb/s")).unwrap_err().1, "write the bytes in a second: \"10M\"");
    }

    #[test]
    fn addresses() {
        assert_eq!(mac(Text("02:00:0a:FF:00:01")), Ok([2, 0, 10, 255, 0, 1]));
        assert_eq!(mac(Text("00-16-3e-00-00-01")), Ok([0, 0x16, 0x3e, 0, 0, 1]));
        for text in
            ["", "02:00:00:00:00", "02:00:00:00:00:01:02", "2:0:0:0:0:1", "02:00:00:00:00:0g", "00:00:00:00:00:00"]
        {
            assert!(mac(Text(text)).is_err(), "{text}");
        }
        assert_eq!(mac(Text("ff:ff:ff:ff:ff:ff")).unwrap_err().1, "write \"fe:ff:ff:ff:ff:ff\"");
        assert_eq!(format_mac([2, 0, 10, 255, 0, 1]), "02:00:0a:ff:00:01");
    }

    #[test]
    fn times() {
        assert_eq!(time_us(Text("250us")), Ok(250));
        assert_eq!(time_us(Text("2 ms")), Ok(2000));
        assert_eq!(time_us(Text("3s")), Ok(3_000_000));
        for text in ["", "ms", "5", "5m", "0s", "-1s", "18446744073709551615s"] {
            assert!(time_us(Text(text)).is_err(), "{text}");
        }
        assert!(time_us(Integer(5)).is_err());
    }

    #[test]
    fn processors() {
        for (text, mask) in
            [("0", 1), ("0-3", 15), ("0,2", 5), ("0-3,^1", 13), ("all", 0), ("63", 1 << 63), ("0-63", !0)]
        {
            assert_eq!(cpus(Text(text)), Ok(mask), "{text}");
            assert_eq!(cpus(Text(&format_cpus(mask))), Ok(mask));
        }
        assert_eq!(cpus(Integer(3)), Ok(8));
        for text in ["", "a", "3-1", "64", "0-", "-1", "0,,1", "1,^1", "^0"] {
            assert!(cpus(Text(text)).is_err(), "{text}");
        }
        assert!(cpus(Integer(64)).is_err() && cpus(Integer(-1)).is_err());
    }

    #[test]
    fn caps() {
        assert_eq!(cap_permille(Integer(25)), Ok(250));
        assert_eq!(cap_permille(Float(2.5)), Ok(25));
        assert_eq!(cap_permille(Text("12.5%")), Ok(125));
        assert_eq!(cap_permille(Integer(0)), Ok(0));
        assert!(cap_permille(Integer(101)).is_err() && cap_permille(Float(f64::NAN)).is_err());
        assert!(cap_permille(Integer(-1)).is_err() && cap_permille(Text("x")).is_err());
    }
}
