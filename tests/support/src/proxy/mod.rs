//! A TCP fault proxy in front of a server. Follows.
