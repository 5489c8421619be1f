"""Families of random problems: what they declare holds, and what they discretize is what they say."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from backsolve import gallery
from backsolve.gallery.families import scattered_field
from backsolve.gallery.grids import bilinear_stiffness, periodic_field

PATH = sp.diags_array([1.0, 2.0, 3.0], offsets=[0, 1, 2], shape=(9, 9))
FAMILIES = [
    gallery.Diffusion(side=6),
    gallery.Diffusion(side=4, dims=3, sigma=2.0),
    gallery.Anisotropic(side=7, epsilon=0.01, theta=0.5, sigma=1.0),
    gallery.ConvectionDiffusion(side=6, peclet=30.0, sigma=1.0),
    gallery.Elasticity(side=4),
    gallery.P1Mesh(side=6),
    gallery.GeometricGraph(n=40),
    gallery.GeometricGraph(n=40, dims=3, degree=4.0),
    gallery.GraphLaplacian(PATH),
    gallery.Kernel(n=30),
    gallery.Kernel(n=20, moving=True),
]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_members_are_what_their_family_declares(family):
    p = family(seed=3)
    dense = p.toarray()
    np.testing.assert_array_equal(p.A.toarray(), dense)
    assert p.n == len(dense) and p.properties == set(family.words.split())
    rounding = 1e-13 * np.abs(dense).max()
    if "symmetric" in p.properties:
        np.testing.assert_array_equal(dense, dense.T)
    if "positive_definite" in p.properties:
        assert np.linalg.eigvalsh(dense).min() > 0
    if "diagonally_dominant" in p.properties:
        off = np.abs(dense).sum(axis=1) - np.abs(np.diag(dense))
        assert (np.diag(dense) >= off - rounding).all()
    if "m_matrix" in p.properties:
        assert (dense - np.diag(np.diag(dense)) <= 0).all() and np.linalg.inv(dense).min() > -1e-12
    again = family(seed=3)
    assert again.A.data.tobytes() == p.A.data.tobytes() and again.b.tobytes() == p.b.tobytes()
    if family.name != "graph_laplacian":
        assert replace(family)(seed=4).toarray().tobytes() != dense.tobytes()


def test_diffusion_solves_a_smooth_problem_to_second_order():
    """-div(grad u) = f on the unit square with u = sin πx sin πy: the error falls by four when the side doubles."""
    errors = []
    for side in (16, 32):
        A = sp.csc_array(gallery.Diffusion(side=side, sigma=0.0)(0).toarray())
        at = (np.arange(side) + 0.5) / side
        u = np.sin(np.pi * at)[:, None] * np.sin(np.pi * at)
        x = sp.linalg.spsolve(A, 2 * np.pi**2 * u.ravel() / side**2)
        errors.append(np.abs(x - u.ravel()).max())
    assert 3.5 < errors[0] / errors[1] < 4.5


def test_elements_reproduce_linear_functions():
    """What is not joined to the boundary feels no linear function, on elements of every kind."""
    for family, x in (
        (gallery.Anisotropic(side=6, sigma=0.0, theta=0.7), np.arange(25) % 5),
        (gallery.Diffusion(side=5, sigma=0.0), np.arange(25) % 5),
    ):
        r = (family(0).toarray() @ x).reshape(5, 5)
        np.testing.assert_allclose(r[1:-1, 1:-1], 0, atol=1e-13)
    np.testing.assert_allclose(bilinear_stiffness(np.eye(2)).sum(axis=1), 0, atol=1e-15)


def test_elasticity_resists_stretching_as_the_material_says():
    """Pulled in y alone without sideways strain, a bar of E = 1 stores ½ (1 - ν)/((1 + ν)(1 - 2ν)) ε² V."""
    side, nu = 3, 0.3
    A = gallery.Elasticity(side=side, poisson=nu, sigma=0.0)(0).toarray()
    y = np.repeat(np.arange(side + 1) / side, side)
    u = np.zeros(len(A))
    u[1::2] = y  # zero sideways; the nodes that are held would move, so only energies of free ones among themselves
    x = np.tile(np.arange(1, side + 1), side + 1) / side
    rotation = np.zeros(len(A))
    rotation[0::2], rotation[1::2] = -y, x
    forces = (A @ rotation).reshape(-1, side, 2)
    np.testing.assert_allclose(forces[:, 1:], 0, atol=1e-14)  # a rotation has no force away from the held side
    stretched = (A @ u).reshape(-1, side, 2)[:, 1:]
    law = (1 - nu) / ((1 + nu) * (1 - 2 * nu))
    np.testing.assert_allclose(stretched[-1, 0, 1], law / side, rtol=1e-12)  # of one column of the top row


def test_fields_have_the_variance_and_correlation_they_say():
    rng = np.random.default_rng(0)
    points = np.array([[0.0, 0.0], [0.1, 0.0], [0.5, 0.5]])
    values = np.array([scattered_field(points, 0.1, rng) for _ in range(4000)])
    covariance = values.T @ values / len(values)
    np.testing.assert_allclose(np.diag(covariance), 1, atol=0.1)
    assert abs(covariance[0, 1] - np.exp(-0.5)) < 0.1 and abs(covariance[0, 2]) < 0.1
    grids = np.array([periodic_field((10, 10), 0.1, rng) for _ in range(4000)])
    assert abs(np.mean(grids**2) - 1) < 0.05
    assert abs(np.mean(grids[:, 0, 0] * grids[:, 0, 1]) - np.exp(-0.5)) < 0.1


def test_the_wind_has_no_sources():
    """What convection takes out of inner cells comes into others: rows of A and of Aᵀ sum to the same."""
    A = gallery.ConvectionDiffusion(side=6, peclet=50.0)(0).toarray()
    np.testing.assert_allclose(A.sum(axis=0), A.sum(axis=1), atol=1e-11)
    assert np.abs(A - A.T).max() > 10


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: gallery.Diffusion(side=1), "Diffusion: side must be an integer of at least 2; got 1"),
        (lambda: gallery.Diffusion(dims=4), "Diffusion: dims must be a number between 2 and 3; got 4"),
        (lambda: gallery.Diffusion(sigma=np.nan), "Diffusion: sigma must be a number between 0 and 20; got nan"),
        (lambda: gallery.Elasticity(poisson=0.5), "Elasticity: poisson must be a number between -0.9 and 0.4999"),
        (lambda: gallery.GraphLaplacian(sp.eye_array(3)), "GraphLaplacian: graph must be square, with edges"),
        (lambda: gallery.Kernel(noise=0.0), "Kernel: noise must be a number between 1e-12"),
    ],
)
def test_options_that_make_no_sense(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
    with pytest.raises(TypeError, match="graph must be a scipy"):
        gallery.GraphLaplacian(np.eye(3))
    with pytest.raises(TypeError, match=r"seed must be an integer; got 1\.5"):
        gallery.Kernel(n=5)(1.5)
