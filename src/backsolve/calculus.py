"""The derivatives of matvec, outer and solve, written once for every framework, method and order.

An operator is one bilinear form ⟨y, A(θ) x⟩, linear in its data θ and in x, with Aᴴ its adjoint:

    matvec(θ, x)   = A(θ) x                      ⟨g, A x⟩ = ⟨Aᴴ g, x⟩ = ⟨outer(g, x), θ⟩
    outer(y, x)    = the θ-shaped array with ⟨outer(y, x), θ⟩ = ⟨y, A(θ) x⟩ for all θ
    solve(θ, b)    = A(θ)⁻¹ b

`ops` has these three, each differentiable by the rules below, so that rules applied to the result of rules give
every order. ``adjoint=True`` stands for Aᴴ in place of A; since ⟨y, Aᴴ x⟩ = conj ⟨x, A y⟩, the arguments of
`outer` then change places. ⟨·,·⟩ is the real part of the inner product, conjugate in its first argument; cotangents
are such that df = Re⟨g, dx⟩ (the convention of PyTorch and TensorFlow).
"""


def matvec_jvp(ops, data, x, data_dot, x_dot, adjoint):
    """ẏ = A(θ̇) x + A(θ) ẋ; a tangent that is None is zero."""
    return _sum(
        None if data_dot is None else ops.matvec(data_dot, x, adjoint),
        None if x_dot is None else ops.matvec(data, x_dot, adjoint),
    )


def matvec_vjp(ops, data, x, g, adjoint, wants):
    """θ̄ = outer(g, x),  x̄ = Aᴴ g."""
    data_bar = (ops.outer(x, g) if adjoint else ops.outer(g, x)) if wants[0] else None
    x_bar = ops.matvec(data, g, not adjoint) if wants[1] else None
    return data_bar, x_bar


def outer_jvp(ops, y, x, y_dot, x_dot):
    """ṡ = outer(ẏ, x) + outer(y, ẋ)."""
    return _sum(
        None if y_dot is None else ops.outer(y_dot, x),
        None if x_dot is None else ops.outer(y, x_dot),
    )


def outer_vjp(ops, y, x, g, wants):
    """ȳ = A(g) x,  x̄ = A(g)ᴴ y: the cotangent g is data."""
    y_bar = ops.matvec(g, x, False) if wants[0] else None
    x_bar = ops.matvec(g, y, True) if wants[1] else None
    return y_bar, x_bar


def solve_jvp(ops, data, x, data_dot, b_dot, adjoint):
    """A ẋ = ḃ - A(θ̇) x, from A x = b."""
    change = None if data_dot is None else -ops.matvec(data_dot, x, adjoint)
    return ops.solve(data, _sum(b_dot, change), adjoint)


def solve_vjp(ops, data, x, g, adjoint, wants):
    """Aᴴ λ = g,  b̄ = λ,  θ̄ = outer(-λ, x)."""
    lam = ops.solve(data, g, not adjoint)
    data_bar = (ops.outer(x, -lam) if adjoint else ops.outer(-lam, x)) if wants[0] else None
    return data_bar, lam if wants[1] else None


def _sum(a, b):
    return b if a is None else a if b is None else a + b
