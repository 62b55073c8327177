"""What ``neuron doctor`` looks at: each check is a function of a `Where` that returns a `Finding`."""
