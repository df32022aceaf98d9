//! The rules as a whole.

mod shipped;
