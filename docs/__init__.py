"""The documentation: pages written by hand, and the generator of the others."""
