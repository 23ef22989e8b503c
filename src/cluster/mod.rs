//! The servers of one cluster: what is known of them, and which one a session should use.
