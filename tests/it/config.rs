//! The configuration as a whole: files, environment, precedence, and the shipped example.
