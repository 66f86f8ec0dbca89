//! The ledger as tables that can be searched: a projection of its stream, disposable.
