"""One adapter per framework: arrays in, `calculus` bound to its automatic differentiation, arrays out."""
