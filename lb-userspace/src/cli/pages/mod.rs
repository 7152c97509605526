//! Answers as pages for people.

pub(super) mod doctor;
pub(super) mod plan;
pub(super) mod site;
pub(super) mod status;
pub(super) mod tables;
pub(super) mod why;
