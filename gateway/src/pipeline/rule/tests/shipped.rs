//! The rules that come with Gatehouse.

use super::super::*;
use crate::pipeline::directory::Directory;

#[test]
fn placeholder() {
    let _ = Directory::default();
}
