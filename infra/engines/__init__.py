"""Generation engines: implementations of the `Sampler` protocol."""
