//! Every model, and two that show what they are good for: without the precaution there is an order of events that fails.

use isatap_loom::{capture, fib, stats, worker};

#[test]
fn control_frees_what_workers_held() {
    fib::control_frees_what_workers_held();
}

#[test]
fn a_worker_frees_without_a_publisher() {
    assert!(fib::a_worker_frees_without_a_publisher());
}

#[test]
fn records_are_whole() {
    capture::records_are_whole();
}

#[test]
fn what_is_released_is_final() {
    capture::what_is_released_is_final();
}

#[test]
fn counters_grow() {
    stats::counters_grow();
}

#[test]
fn histograms_change_hands() {
    stats::histograms_change_hands();
}

#[test]
fn no_word_is_lost() {
    worker::no_word_is_lost();
}

#[test]
fn a_word_is_lost_when_silenced_late() {
    assert!(worker::a_word_is_lost_when_silenced_late());
}
