//! Harness for tests that need a running daemon.
