//! Results of calls, as they stand in x0.
//!
//! Zero and above is success, negative is an error. [`Status::Again`] is the one positive value:
//! a restartable call did a bounded piece and wants to be made again with the same arguments.

macro_rules! statuses {
    ($($(#[doc = $doc:literal])* $name:ident = $value:literal, $text:literal;)*) => {
        /// Result of a call, sign-extended into x0.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(i64)]
        pub enum Status { $($(#[doc = $doc])* $name = $value),* }

        impl Status {
            /// All statuses with their value, name and one-line meaning: for generators and tools.
            pub const TABLE: &[(Status, i64, &str, &str)] =
                &[$((Status::$name, $value, stringify!($name), $text)),*];

            /// Decodes x0. An unknown value is `None`, never success.
            pub const fn from_raw(raw: i64) -> Option<Self> {
                match raw { $($value => Some(Self::$name),)* _ => None }
            }

            /// What went wrong, in words.
            pub const fn describe(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

statuses! {
    /// Done.
    Ok = 0, "done";
    /// A bounded piece of a long operation is done: call again with the same arguments.
    Again = 1, "a piece is done, call again";
    /// The call number is unknown or not offered. The value is that of SMCCC.
    NotSupported = -1, "no such call, or not offered";
    /// An argument is out of its documented range, or a reserved bit is set.
    Invalid = -2, "an argument is out of range or a reserved bit is set";
    /// The handle names nothing in the caller's table (never did, or no longer).
    BadHandle = -3, "the handle names nothing";
    /// The handle names an object of another type.
    WrongType = -4, "the handle names an object of another type";
    /// The handle lacks a right that the call needs.
    NoRights = -5, "the handle lacks a right";
    /// The object is not in a state in which the call makes sense.
    BadState = -6, "the object is in a state that refuses this";
    /// The budget of the domain that pays is exhausted.
    NoBudget = -7, "the budget of the domain that pays is exhausted";
    /// A fixed limit of the ABI is reached (table, port bits, vCPUs).
    Limit = -8, "a fixed limit is reached";
    /// The range or slot is taken already.
    Exists = -9, "the range or slot is taken";
    /// Nothing is there (unmapped range, no record, end of a listing).
    NotFound = -10, "nothing is there";
    /// The other end of the port or the borrower is gone.
    PeerGone = -11, "the other end is gone";
    /// The deadline passed first.
    TimedOut = -12, "the deadline passed";
    /// The memory still holds another domain's data: scrub it first.
    Dirty = -13, "the memory holds another domain's data, scrub it first";
    /// Admission refused: the processors asked for cannot be guaranteed.
    Overcommitted = -14, "the processors cannot guarantee this reservation";
    /// The caller is over its rate (log lines), the call had no effect.
    RateLimited = -15, "over the rate, nothing was done";
}

impl Status {
    /// The value for x0.
    pub const fn raw(self) -> i64 {
        self as i64
    }

    /// `Ok(())` for [`Status::Ok`], the status itself otherwise.
    pub const fn ok(self) -> Result<(), Status> {
        match self {
            Status::Ok => Ok(()),
            other => Err(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Status;

    #[test]
    fn raw_round_trips_and_unknown_is_refused() {
        for &(status, raw, _, _) in Status::TABLE {
            assert_eq!(Status::from_raw(raw), Some(status));
            assert_eq!(status.raw(), raw);
        }
        assert_eq!(Status::from_raw(2), None);
        assert_eq!(Status::from_raw(-999), None);
    }
}
