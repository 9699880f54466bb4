//! Policy: what may be done by whom; pure, total and deterministic.
