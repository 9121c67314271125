"""Features as colours: the three directions in which a scene's features differ most, as red, green and blue.

A pixel's feature is ``F = W A``, W its code over the L atoms A [L, D]. The covariance of features is ``A^T C A`` with C
the covariance of codes, and its principal directions are combinations of atoms, ``u = A^T b``. With ``G = A A^T`` the b
are found in dictionary space, and a feature's coordinate is ``F u = W (G b)``: three numbers per atom, exact, whatever
D is. They are linear in the code, so that Gaussians can be given their three coordinates before they are splatted.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from splat.codes import LanguageField
from splat.gaussians import Gaussians

SPREAD = 2.0
"""So many standard deviations to either side of the mean become the darkest and the brightest value."""


@dataclass(frozen=True)
class FeaturePca:
    """Principal components of the features of one level.

    Attributes:
        level: whose features.
        atoms: coordinates of each atom, ``G b`` scaled to colours. float32 [L, 3]
        offset: added to a code's sum of them. float32 [3]
        variances: of the features along the components, largest first. float64 [3]
    """

    level: int
    atoms: Tensor
    offset: Tensor
    variances: Tensor

    def colors(self, indices: Tensor, weights: Tensor) -> Tensor:
        """Colours of codes, centred at 0.5, mostly within 0..1.

        Args:
            indices: [..., K] of this level. weights: [..., K].

        Returns:
            float32 [..., 3]
        """
        return (self.atoms[indices.long()] * weights[..., None]).sum(-2) + self.offset


def feature_pca(field: LanguageField, level: int, mass: Tensor | None = None) -> FeaturePca:
    """Principal components of the Gaussians' features.

    Args:
        field: codes of N Gaussians.
        level: of whose features.
        mass: how much each Gaussian counts; those without a code never do. [N], equal if None
    """
    indices, weights = field.indices[:, level].long(), field.weights[:, level].double()
    atoms = field.atoms[level].double()
    count = len(atoms)
    mass = torch.ones_like(weights[:, 0]) if mass is None else mass.double()
    mass = mass * (weights != 0).any(1)
    mass = mass / mass.sum().clamp_min(1e-300)
    # K x K products per Gaussian and not L x L: the codes are sparse.
    pairs = indices[:, :, None] * count + indices[:, None, :]
    products = mass[:, None, None] * weights[:, :, None] * weights[:, None, :]
    moment = weights.new_zeros(count * count).index_add_(0, pairs.flatten(), products.flatten()).view(count, count)
    mean = weights.new_zeros(count).index_add_(0, indices.flatten(), (mass[:, None] * weights).flatten())
    covariance = moment - torch.outer(mean, mean)
    # G is symmetric and may be singular: with its root R, the eigenvectors of R C R are R b.
    values, vectors = torch.linalg.eigh(atoms @ atoms.T)
    root = vectors * values.clamp_min(0.0).sqrt() @ vectors.T
    variances, rooted = torch.linalg.eigh(root @ covariance @ root)
    variances, rooted = variances[-3:].flip(0), rooted[:, -3:].flip(1)
    if count < 3:
        rooted = torch.nn.functional.pad(rooted, (0, 3 - count))
        variances = torch.nn.functional.pad(variances, (0, 3 - count))
    coordinates = root @ rooted  # G b, because R (R b) = G b
    # An eigenvector's sign is arbitrary: the largest coordinate of an atom is made positive, so that colours stay.
    sign = coordinates.gather(0, coordinates.abs().argmax(0, keepdim=True)).sign()
    coordinates = coordinates * torch.where(sign == 0, 1.0, sign)
    scale = 0.5 / (SPREAD * variances.clamp_min(1e-12).sqrt())
    return FeaturePca(
        level,
        (coordinates * scale).float(),
        (0.5 - mean @ coordinates * scale).float(),
        variances.clamp_min(0.0),
    )


def gaussian_colors(gaussians: Gaussians, field: LanguageField, level: int) -> Tensor:
    """The colour of each Gaussian's own feature, components weighted by how much Gaussians show. float32 [N, 3]

    Splatted with `splat.rasterize.rasterize_features` these are, where a pixel is covered, the colours of the pixels'
    features; the sum of blending weights scales them as it scales features.
    """
    area = gaussians.scales.detach().sort(dim=1).values[:, 1:].prod(dim=1)
    pca = feature_pca(field, level, gaussians.opacities.detach() * area)
    return pca.colors(field.indices[:, level], field.weights[:, level])
