"""The edge gradient compiled for the CPU; the maths and the frame are those of `reference`.

Every image, or run of faces of an image, is one task that alone writes its gradients, so the result is bit-equal for
any number of threads. With the mask as the only channel, which is what silhouette losses need, a sweep outside passes
only the pixels that can contribute, kept in a list for every line.
"""

from __future__ import annotations

import math

import numba
import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from recon3d.kernels.neural_rasterize.numba_textures import sample_textures as sample_textures
from recon3d.kernels.soft_silhouette.reference import MIN_AREA
from recon3d.kernels.zbuffer.reference import MIN_Z

FAST = {"reassoc", "contract", "nsz"}  # vectorised sums; the order is fixed when compiled, so bits are too


@njit(cache=True)
def _set_lines(index, channels, grad, owner, value, slope, listed, weight, first):
    """One image to lines that sweeps pass contiguously: axis 0 columns from the bottom up, axis 1 rows from the left.

    `owner` (2,S,S); `slope`, `value` (2,S,K,S). With one channel, instead of `value`, the list of empty pixels that
    should be covered: their places `listed` (2,S,S), weights -slope, and `first` (2,S,S+1): how many lie before each
    pixel.
    """
    size = index.shape[0]
    for row in range(size):
        up = size - 1 - row
        for column in range(size):
            face = index[row, column]
            owner[0, column, up] = face
            owner[1, up, column] = face
    for k in range(channels.shape[0]):
        for row in range(size):
            up = size - 1 - row
            for column in range(size):
                slope[0, column, k, up] = grad[k, row, column]
                slope[1, up, k, column] = grad[k, row, column]
    if channels.shape[0] > 1:
        for k in range(channels.shape[0]):
            for row in range(size):
                up = size - 1 - row
                for column in range(size):
                    value[0, column, k, up] = channels[k, row, column]
                    value[1, up, k, column] = channels[k, row, column]
        return
    for axis in range(2):
        for u in range(size):
            count = 0
            for q in range(size):
                first[axis, u, q] = count
                if owner[axis, u, q] < 0 and slope[axis, u, 0, q] < 0.0:
                    listed[axis, u, count] = q
                    weight[axis, u, count] = -slope[axis, u, 0, q]
                    count += 1
            first[axis, u, size] = count


@njit(cache=True, fastmath=FAST, error_model="numpy")
def _listed_sums(listed, weight, begin, end, crossing, scale_a, scale_b, eps_a, eps_b):
    """Sums of weight / distance over the listed pixels [begin, end), for both ends of an edge."""
    sum_a, sum_b = 0.0, 0.0
    for n in range(begin, end):
        reach = listed[n] - crossing
        sum_a += weight[n] / (scale_a * reach + eps_a)
        sum_b += weight[n] / (scale_b * reach + eps_b)
    return sum_a, sum_b


@njit(cache=True, fastmath=FAST, error_model="numpy")
def _color_sums(value, slope, inner, begin, end, crossing, scale_a, scale_b, eps_a, eps_b):
    """Sums of gain / distance over the pixels [begin, end) of a line (4,S), for both ends of an edge."""
    v0, v1, v2, v3 = value[0, inner], value[1, inner], value[2, inner], value[3, inner]
    sum_a, sum_b = 0.0, 0.0
    for q in range(begin, end):
        change = np.float64((value[0, q] - v0) * slope[0, q] + (value[1, q] - v1) * slope[1, q])
        change += (value[2, q] - v2) * slope[2, q] + (value[3, q] - v3) * slope[3, q]
        gain = change if change > 0.0 else 0.0
        reach = q - crossing
        sum_a += gain / (scale_a * reach + eps_a)
        sum_b += gain / (scale_b * reach + eps_b)
    return sum_a, sum_b


@njit(cache=True, inline="always")
def _shares_corner(verts, face, other, corner):
    """Whether `face` has a corner exactly where corner `corner` of face `other` is."""
    x, y, z = verts[other, corner]
    for k in range(3):  # noqa: SIM110, numba compiles no generators
        if verts[face, k, 0] == x and verts[face, k, 1] == y and verts[face, k, 2] == z:
            return True
    return False


@njit(cache=True, inline="always")
def _gain(value, slope, q, pixel, paper):
    """What the loss gains where pixel q of a line (K,S) takes the value of `pixel`; at least 0."""
    total = 0.0
    for k in range(value.shape[0]):
        change = (value[k, q] - value[k, pixel]) * slope[k, q]
        total += max(change, 0.0) if paper else change
    return max(total, 0.0)


@njit(cache=True, inline="always")
def _away(distance, eps):
    return distance + eps if distance > 0.0 else distance - eps


@njit(cache=True, error_model="numpy")
def _faces_gradient(verts, begin, end, owner, value, slope, listed, weight, first, eps, paper, grad):
    """Gradient (F,3,2) of the faces [begin, end) of one image; `verts` (F,3,3) in NDC."""
    size = owner.shape[1]
    only_mask = slope.shape[2] == 1
    pixel = np.empty((3, 2))
    shown = np.zeros(verts.shape[0], np.bool_)
    for face in owner[0].flat:
        if face >= 0:
            shown[face] = True
    for f in range(begin, end):
        grad[f] = 0.0
        if not (paper or shown[f]):  # every term of the code's rule needs a pixel that shows f
            continue
        if verts[f, 0, 2] <= MIN_Z or verts[f, 1, 2] <= MIN_Z or verts[f, 2, 2] <= MIN_Z:
            continue
        for k in range(3):
            pixel[k, 0] = 0.5 * ((1.0 - verts[f, k, 0]) * size - 1.0)
            pixel[k, 1] = 0.5 * ((1.0 + verts[f, k, 1]) * size - 1.0)
        area = (pixel[1, 0] - pixel[0, 0]) * (pixel[2, 1] - pixel[0, 1])
        area -= (pixel[1, 1] - pixel[0, 1]) * (pixel[2, 0] - pixel[0, 0])
        if abs(area) * 4.0 / (size * size) <= MIN_AREA:
            continue
        turn = 1 if area > 0.0 else 2  # corners counter-clockwise
        for edge in range(3):
            a = (edge * turn) % 3
            b, c = (a + turn) % 3, (a + 2 * turn) % 3
            for axis in range(2):
                ua, ub, uc = pixel[a, axis], pixel[b, axis], pixel[c, axis]
                va, vb, vc = pixel[a, 1 - axis], pixel[b, 1 - axis], pixel[c, 1 - axis]
                if ua == ub:
                    continue
                outward = -1 if (ua < ub) == (axis == 0) else 1
                # Clamped before the cast: coordinates far off screen do not fit an integer.
                from_line = math.ceil(min(max(min(ua, ub), 0.0), float(size)))
                to_line = int(max(min(max(ua, ub), size - 1.0), -1.0))  # towards zero, as in the code
                grad_a, grad_b = 0.0, 0.0
                for u in range(from_line, to_line + 1):
                    crossing = va + (vb - va) / (ub - ua) * (u - ua)
                    if not -1.0 < crossing < size:
                        continue
                    i = math.floor(crossing) if outward > 0 else math.ceil(crossing)
                    o = i + outward
                    if i < 0 or i >= size or o < 0 or o >= size:
                        continue
                    near = owner[axis, u, i]
                    if paper:
                        far_a = near >= 0 and _shares_corner(verts, near, f, a)
                        far_b = near >= 0 and _shares_corner(verts, near, f, b)
                        inner_a, inner_b = far_a, far_b
                    else:
                        far_a = far_b = near == f
                        inner_a = inner_b = True
                    far_a, inner_a = far_a and ub != u, inner_a and ub != u
                    far_b, inner_b = far_b and ua != u, inner_b and ua != u
                    # NDC distance of an end for each pixel that the crossing moves.
                    scale_a = (ub - ua) / (ub - u) * 2.0 / size if ub != u else 1.0
                    scale_b = (ub - ua) / (u - ua) * 2.0 / size if ua != u else 1.0

                    if far_a or far_b:
                        eps_a = eps if scale_a * outward > 0.0 else -eps
                        eps_b = eps if scale_b * outward > 0.0 else -eps
                        head, tail = (o, size) if outward > 0 else (0, o + 1)
                        if only_mask:
                            head, tail = first[axis, u, head], first[axis, u, tail]
                            sum_a, sum_b = _listed_sums(
                                listed[axis, u], weight[axis, u], head, tail, crossing, scale_a, scale_b, eps_a, eps_b
                            )
                        elif not paper:
                            sum_a, sum_b = _color_sums(
                                value[axis, u], slope[axis, u], i, head, tail, crossing, scale_a, scale_b, eps_a, eps_b
                            )
                        else:
                            sum_a, sum_b = 0.0, 0.0
                            for q in range(head, tail):
                                gain = _gain(value[axis, u], slope[axis, u], q, i, paper)
                                sum_a += gain / (scale_a * (q - crossing) + eps_a)
                                sum_b += gain / (scale_b * (q - crossing) + eps_b)
                        grad_a -= sum_a if far_a else 0.0
                        grad_b -= sum_b if far_b else 0.0

                    if (inner_a or inner_b) and not (only_mask and owner[axis, u, o] >= 0):
                        # The opposite edge, between c and the end on the other side of this line.
                        ue, ve = (ua, va) if (u - ua) * (u - uc) < 0.0 else (ub, vb)
                        opposite = vc if ue == uc else ve + (vc - ve) / (uc - ue) * (u - ue)
                        opposite = min(max(opposite, -1.0), float(size))
                        limit = math.ceil(opposite) if outward > 0 else math.floor(opposite)
                        for q in range(max(min(i, limit), 0), min(max(i, limit), size - 1) + 1):
                            if owner[axis, u, q] != f:
                                continue
                            if only_mask:  # q is covered, o is not
                                gain = np.float64(slope[axis, u, 0, q])
                            else:
                                gain = _gain(value[axis, u], slope[axis, u], q, o, paper)
                            if gain > 0.0:
                                if inner_a:
                                    grad_a -= gain / _away(scale_a * (q - crossing), eps)
                                if inner_b:
                                    grad_b -= gain / _away(scale_b * (q - crossing), eps)
                side = 1.0 if axis == 0 else -1.0  # NDC +x is left
                grad[f, a, 1 - axis] += side * grad_a
                grad[f, b, 1 - axis] += side * grad_b


@njit(cache=True, parallel=True)
def _edge_gradient_parallel(verts, index, channels, grad, runs, eps, paper, result):
    size, k, faces = index.shape[1], channels.shape[1], verts.shape[1]
    lines = size if k == 1 else 0  # that have a list
    for task in prange(len(index) * runs):
        b, run = task // runs, task % runs
        owner = np.empty((2, size, size), np.int32)
        value = np.empty((2, size, k if k > 1 else 0, size), channels.dtype)
        slope = np.empty((2, size, k, size), channels.dtype)
        listed = np.empty((2, lines, lines), np.float64)
        weight = np.empty((2, lines, lines), np.float64)
        first = np.empty((2, lines, size + 1), np.int32)
        _set_lines(index[b], channels[b], grad[b], owner, value, slope, listed, weight, first)
        begin, end = run * faces // runs, (run + 1) * faces // runs
        _faces_gradient(verts[b], begin, end, owner, value, slope, listed, weight, first, eps, paper, result[b])


def edge_gradient(face_verts: Tensor, index: Tensor, channels: Tensor, grad: Tensor, eps: float, paper: bool) -> Tensor:
    """See `recon3d.kernels.neural_rasterize.reference.edge_gradient`."""
    result = np.empty((*face_verts.shape[:3], 2), np.float64)
    if result.size:
        threads = numba.get_num_threads()
        runs = 1 if len(result) >= threads else threads
        _edge_gradient_parallel(
            face_verts.double().contiguous().numpy(),
            index.numpy(),
            channels.contiguous().numpy(),
            grad.contiguous().numpy(),
            runs,
            float(eps),
            paper,
            result,
        )
    return torch.from_numpy(result)
