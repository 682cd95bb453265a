"""Independent truths for ALPS: the published iteration, and least squares on a support."""

import torch
from numeric import damped, lowest


def project(values, pattern):
    """Keep-mask of the largest magnitudes, by a stable sort."""
    scores = values.abs()
    if pattern.structured:
        return ~lowest(scores.reshape(-1, pattern.m), pattern.n).view_as(scores)
    return ~lowest(scores.reshape(1, -1), round(scores.numel() * pattern.sparsity)).view_as(scores)


def published_admm(weight, hessian, pattern, damping=0.01):
    """The support of ALPS's ADMM in float64, by an eigendecomposition, unscaled dual V."""
    hessian = damped(hessian, damping)
    scale = hessian.diagonal().sqrt()
    values, vectors = torch.linalg.eigh(hessian / scale / scale[:, None])
    normal = (vectors * values) @ vectors.mT
    dense = weight.double() * scale
    keep = before = project(dense, pattern)
    sparse, dual, rho = dense * keep, torch.zeros_like(dense), 0.1
    for iteration in range(1, 301):
        inverse = (vectors / (values + rho)) @ vectors.mT
        solution = (dense @ normal - dual + rho * sparse) @ inverse
        target = solution + dual / rho
        last, keep = keep, project(target, pattern)
        sparse = target * keep
        dual = dual + rho * (solution - sparse)
        if iteration % 3 == 0:
            changed, kept = int((keep != before).sum()), int(before.sum())
            if changed == 0 and torch.equal(keep, last):
                break
            rho *= 1.3 if changed > 0.1 * kept else 1.2 if changed > 0.005 * kept else 1.1
            before = keep
    return keep


def best_on(weight, keep, hessian):
    """Weights of the least error on a support, by a float64 solve for every row."""
    result = torch.zeros_like(weight, dtype=torch.float64)
    for row, (dense, kept) in enumerate(zip(weight.double(), keep, strict=True)):
        own = hessian[kept][:, kept]
        result[row, kept] = torch.linalg.solve(own, hessian[kept] @ dense)
    return result


def loss_of(weight, pruned, hessian):
    change = pruned.double() - weight.double()
    return float(((change @ hessian) * change).sum())
