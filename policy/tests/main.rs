//! The policy as its users see it: files in, faults or decisions out.

#[cfg(test)]
mod decisions;
#[cfg(test)]
mod example;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod support;
