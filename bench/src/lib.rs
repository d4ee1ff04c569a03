//! Criterion benches over the engine, and the baseline loop to compare with.
