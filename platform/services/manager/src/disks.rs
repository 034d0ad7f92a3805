//! What a person types to add a disk to a guest, and to take it away.

use alloc::format;
use alloc::string::{String, ToString};
use portico_bundle::description::{MAX_PARTITION, Part, label_is_valid, name_is_valid};

/// How long a guest has to give a disk up if nothing else is said, in seconds.
const USUAL_SECONDS: u64 = 10;
/// Longest time that can be given, in seconds.
const MOST_SECONDS: u64 = 3600;

/// What is to become of a disk of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is to be there.
    Add {
        /// The machine's disk.
        disk: String,
        /// The part of it.
        part: Part,
        /// The guest may only read it.
        read_only: bool,
    },
    /// It is to be taken away.
    Remove {
        /// How long the guest has to give it up; `None`: it is not asked.
        seconds: Option<u64>,
    },
}

/// Reads `add GUEST NAME=SOURCE [ro]` or `remove GUEST NAME [SECONDS|now]`: the guest, the disk's name there, and what is to become of it.
///
/// # Errors
/// A message that says what to write instead.
pub fn parse<'a>(words: &[&'a str]) -> Result<(&'a str, &'a str, Change), String> {
    match *words {
        ["add", guest, disk] => add(guest, disk, false),
        ["add", guest, disk, "ro"] => add(guest, disk, true),
        ["add", guest, disk, "rw"] => add(guest, disk, false),
        ["remove", guest, name] => Ok((guest, name, Change::Remove { seconds: Some(USUAL_SECONDS) })),
        ["remove", guest, name, "now"] => Ok((guest, name, Change::Remove { seconds: None })),
        ["remove", guest, name, word] => match word.parse() {
            Ok(seconds @ 1..=MOST_SECONDS) => Ok((guest, name, Change::Remove { seconds: Some(seconds) })),
            _ => Err(format!("`{word}`: SECONDS is a number from 1 to {MOST_SECONDS}, or write `now`")),
        },
        _ => Err("usage: disk add GUEST NAME=SOURCE [ro], or disk remove GUEST NAME [SECONDS|now]".to_string()),
    }
}

fn add<'a>(guest: &'a str, disk: &'a str, read_only: bool) -> Result<(&'a str, &'a str, Change), String> {
    let Some((name, source)) = disk.split_once('=') else {
        return Err(format!("`{disk}`: write NAME=SOURCE, as in spare=data:2"));
    };
    let (disk, part) = source_of(source)?;
    Ok((guest, name, Change::Add { disk, part, read_only }))
}

/// A disk of the machine, or a partition of it.
fn source_of(text: &str) -> Result<(String, Part), String> {
    let wrong = || format!("`{text}`: write a disk of the machine or a partition of it: data, data:2 or data:LABEL");
    let (disk, part) = text.split_once(':').unwrap_or((text, ""));
    if !name_is_valid(disk) || (part.is_empty() && text.contains(':')) {
        return Err(wrong());
    }
    let part = match part.parse() {
        _ if part.is_empty() => Part::Whole,
        Ok(number @ 1..=MAX_PARTITION) => Part::Number(number),
        Err(_) if label_is_valid(part) => Part::Label(part.to_string()),
        _ => return Err(wrong()),
    };
    Ok((disk.to_string(), part))
}

#[cfg(test)]
mod tests {
    use super::{Change, parse};
    use alloc::string::String;
    use alloc::vec::Vec;
    use portico_bundle::description::Part;
    use proptest::prelude::*;

    fn read(line: &str) -> Result<Change, String> {
        let words: Vec<&str> = line.split(' ').collect();
        parse(&words).map(|(guest, name, change)| {
            assert_eq!((guest, name), ("web", "spare"));
            change
        })
    }

    fn added(part: Part, read_only: bool) -> Result<Change, String> {
        Ok(Change::Add { disk: "data".into(), part, read_only })
    }

    #[test]
    fn good_lines() {
        assert_eq!(read("add web spare=data"), added(Part::Whole, false));
        assert_eq!(read("add web spare=data:2 ro"), added(Part::Number(2), true));
        assert_eq!(read("add web spare=data:home"), added(Part::Label("home".into()), false));
        assert_eq!(read("remove web spare"), Ok(Change::Remove { seconds: Some(10) }));
        assert_eq!(read("remove web spare 3"), Ok(Change::Remove { seconds: Some(3) }));
        assert_eq!(read("remove web spare now"), Ok(Change::Remove { seconds: None }));
    }

    #[test]
    fn bad_lines_say_what_to_write() {
        for (line, words) in [
            ("add web spare", "NAME=SOURCE"),
            ("add web spare=", "data:LABEL"),
            ("add web spare=data:", "data:LABEL"),
            ("add web spare=data:0", "data:LABEL"),
            ("add web spare=data:129", "data:LABEL"),
            ("add web spare=data@1M", "data:LABEL"),
            ("add web spare=data:2 wr", "usage"),
            ("remove web", "usage"),
            ("remove web spare soon", "`now`"),
            ("remove web spare 0", "`now`"),
            ("list", "usage"),
        ] {
            assert!(read(line).is_err_and(|why| why.contains(words)), "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_line_breaks_it(line in "(add|remove)?( .{0,20}){0,4}") {
            let words: Vec<&str> = line.split(' ').collect();
            let _ = parse(&words);
        }
    }
}
