//! Config packages: reading, validating and hashing them.
