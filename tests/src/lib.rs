//! nodewall test lab.

pub mod lab;
