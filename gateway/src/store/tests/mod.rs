//! The journal against what it promises: a model with faults, images of crashes, damage, copies, the writer's thread.

mod clocks;
mod commits;
mod crash;
mod faults;
mod folding;
mod forgetting;
mod full_disk;
mod keeping;
mod memory;
mod opening;
mod reading;
mod running;
