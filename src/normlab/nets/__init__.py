"""The network, and its weights as a file."""
