//! The journal: the only place with SQL.
