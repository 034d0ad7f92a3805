//! Times of day as a person writes and reads them, in UTC.

use alloc::format;
use alloc::string::String;
use time::{Date, Month, OffsetDateTime, Time};

/// Nanoseconds in a second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// The time that is so many nanoseconds after 1970-01-01 00:00, as `2026-11-22 08:00:00 UTC`.
pub fn show(wall_ns: u64) -> String {
    let seconds = i64::try_from(wall_ns / SECOND_NS).unwrap_or(i64::MAX);
    let Ok(at) = OffsetDateTime::from_unix_timestamp(seconds) else { return String::from("a time far away") };
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

/// Reads `YYYY-MM-DDTHH:MM:SS`, as nanoseconds after 1970-01-01 00:00. `None` if it is none, or before that, or after 2554.
pub fn parse(text: &str) -> Option<u64> {
    let (date, clock) = text.strip_suffix('Z').unwrap_or(text).split_once('T')?;
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(clock, ':')?;
    let byte = |number: u16| u8::try_from(number).ok();
    let month = Month::try_from(byte(month)?).ok()?;
    let date = Date::from_calendar_date(i32::from(year), month, byte(day)?).ok()?;
    let clock = Time::from_hms(byte(hour)?, byte(minute)?, byte(second)?).ok()?;
    let seconds = date.with_time(clock).assume_utc().unix_timestamp();
    u64::try_from(seconds).ok()?.checked_mul(SECOND_NS)
}

fn numbers(text: &str, between: char) -> Option<[u16; 3]> {
    let mut parts = text.split(between).map(|part| part.parse().ok());
    let all = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(all)
}

#[cfg(test)]
mod tests {
    use super::{SECOND_NS, parse, show};

    #[test]
    fn a_time_is_read_as_it_is_shown() {
        assert_eq!(show(0), "1970-01-01 00:00:00 UTC");
        let leap_day = parse("2024-02-29T23:59:58").expect("a time");
        assert_eq!((leap_day, show(leap_day)), (1_709_251_198 * SECOND_NS, "2024-02-29 23:59:58 UTC".into()));
        assert_eq!(parse("2024-03-01T00:00:00Z"), Some(leap_day + 2 * SECOND_NS));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for wrong in [
            "",
            "2024-02-29",
            "2023-02-29T00:00:00",
            "2024-13-01T00:00:00",
            "2024-01-01T24:00:00",
            "1969-12-31T23:59:59",
            "9999-01-01T00:00:00",
            "2024-01-01T00:00",
            "2024-01-01-01T00:00:00",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
