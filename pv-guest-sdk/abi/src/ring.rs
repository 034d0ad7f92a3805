//! Rings: single producer, single consumer, over one shared window.
