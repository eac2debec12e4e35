//! nodewall test lab.
