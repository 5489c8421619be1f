"""Test problems: named ones, of any size and of known nature, and families of random ones to learn from.

>>> from backsolve import gallery
>>> gallery.problem("poisson2d", 25)
Problem poisson2d: 25 unknowns, 105 values, diagonally_dominant, hermitian, m_matrix, positive_definite, symmetric
>>> family = gallery.Diffusion(side=8)
>>> family(seed=3)
Problem diffusion: 64 unknowns, 288 values, diagonally_dominant, hermitian, m_matrix, positive_definite, symmetric
"""

from .families import Family
from .graphs import GeometricGraph, GraphLaplacian
from .grids import Anisotropic, ConvectionDiffusion, Diffusion
from .kernels import Kernel
from .meshes import Elasticity, P1Mesh
from .problems import PROPERTIES, Problem, names, problem

__all__ = [
    "PROPERTIES",
    "Anisotropic",
    "ConvectionDiffusion",
    "Diffusion",
    "Elasticity",
    "Family",
    "GeometricGraph",
    "GraphLaplacian",
    "Kernel",
    "P1Mesh",
    "Problem",
    "names",
    "problem",
]
