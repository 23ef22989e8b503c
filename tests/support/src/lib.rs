//! Real PostgreSQL clusters on loopback, and a fault proxy, for Segue's tests and its demo.
