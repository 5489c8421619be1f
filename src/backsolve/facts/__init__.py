"""What can be found out about one square matrix: each module one kind of fact, on plain NumPy values."""
