"""The engine of local solves: what reads the rows and columns of a matrix near some nodes only."""
