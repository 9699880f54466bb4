//! The policy as its users see it: files in, faults or decisions out.
#![expect(
    clippy::format_push_string,
    clippy::string_slice,
    clippy::too_many_lines,
    reason = "tests may be plain: a long table is read line by line, and a panic is a failure"
)]

#[cfg(test)]
mod claims;
#[cfg(test)]
mod decisions;
#[cfg(test)]
mod example;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod messages;
#[cfg(test)]
mod naive;
#[cfg(test)]
mod outbound;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod support;
