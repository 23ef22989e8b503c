//! Networks that swallow, cut, delay and garble, and servers that never come back.
