//! Empty: this package is there for its dependencies' files.
