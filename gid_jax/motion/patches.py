"""Holes in a photo closed by patches from elsewhere in it, so that texture and horizons go on (Wexler et al. 2007).

Coarse to fine, each pixel in or beside a hole finds the patch around known pixels that is most like its own, and holes
take the mean of what the patches over them say. Nothing is drawn at random: the same photo gives the same filling.
"""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from jaxtyping import Bool, Float

_RADIUS = 3  # of patches, pixels
_SMALLEST = 32  # pixels of the short side of the coarsest scale
_SEARCHED = 100  # pixels of the long side up to which every patch is compared with every other
_ROUNDS = 5  # of search and mean at such a scale
_FINE_ROUNDS = 2  # of finer ones, which begin with the matches of the scale before
_SWEEPS = 300  # of the smooth filling to begin with
_INWARDS = 1.3  # by which a patch counts less for each pixel further from the rim
_CHUNK = 512  # pixels whose patches are compared with all others at once
_AROUND = [(dy, dx) for dy in range(-_RADIUS, _RADIUS + 1) for dx in range(-_RADIUS, _RADIUS + 1)]


def copy_patches(image: Float[np.ndarray, "h w c"], hole: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "h w c"]:
  """Closes holes by patches from elsewhere.

  Args:
    image: [h w c], any values; what is in the holes does not count.
    hole: [h w] where it is to be filled.

  Returns:
    [h w c] float32; outside the holes `image` itself. Where too little is known to copy from it is smooth.
  """
  image = np.asarray(image, np.float32)
  if not hole.any():
    return image
  scales = [(image, hole)]
  while min(scales[-1][1].shape) >= 2 * _SMALLEST:
    scales.append(_halve(*scales[-1]))
  filled, matches = _smooth(*scales[-1]), None
  for image, hole in reversed(scales):
    height, width = hole.shape
    if filled.shape[:2] != hole.shape:
      filled = cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR)
      matches = None if matches is None else _enlarge(matches, height, width)
    filled = np.where(hole[..., None], filled, image)
    touched = cv2.dilate(hole.astype(np.uint8), np.ones((2 * _RADIUS + 1,) * 2, np.uint8)) > 0
    known = ~touched
    known[:_RADIUS], known[-_RADIUS:], known[:, :_RADIUS], known[:, -_RADIUS:] = False, False, False, False
    if not known.any():
      continue
    is_searched = matches is None or max(height, width) <= _SEARCHED
    for _ in range(_ROUNDS if is_searched else _FINE_ROUNDS):
      if is_searched:
        matches, distances = _search(filled, touched, known)
      else:
        matches, distances = _refine(filled, touched, known, matches)
      filled = _vote(filled, hole, touched, matches, distances)
  return filled


def _halve(image, hole):
  # Means of what is known; what is known by less than half is a hole.
  size = (hole.shape[1] // 2, hole.shape[0] // 2)
  shrink = lambda array: cv2.resize(array, size, interpolation=cv2.INTER_AREA)
  known = (~hole).astype(np.float32)
  share = shrink(known)
  return shrink(image * known[..., None]) / np.maximum(share, 1e-6)[..., None], share < 0.5


def _smooth(image, hole):
  inside = hole[..., None]
  filled = np.where(inside, image[~hole].mean(0) if not hole.all() else 0, image).astype(np.float32)
  cross = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32) / 4
  for _ in range(_SWEEPS):
    filled = np.where(inside, cv2.filter2D(filled, -1, cross, borderType=cv2.BORDER_REPLICATE), image)
  return filled


def _enlarge(matches, height, width):
  """Places [h w 2] of matches, at twice the resolution."""
  rows, columns = (np.minimum(np.arange(n) // 2, m - 1) for n, m in zip((height, width), matches.shape, strict=False))
  inner = np.stack(np.meshgrid(np.arange(height) % 2, np.arange(width) % 2, indexing="ij"), -1)
  return 2 * matches[rows][:, columns] + inner


def _search(filled, touched, known):
  """The best match of every touched pixel among all known ones, as places [h w 2], and its distance [n]."""
  side = 2 * _RADIUS + 1
  padded = _pad(filled)
  patches = np.lib.stride_tricks.sliding_window_view(padded, (side, side), (0, 1))
  own, theirs = (patches[where].reshape(-1, side * side * filled.shape[-1]) for where in (touched, known))
  sources, squares = np.argwhere(known), np.square(theirs).sum(1)
  best, distances = np.empty(len(own), int), np.empty(len(own), np.float32)
  for start in range(0, len(own), _CHUNK):
    part = own[start : start + _CHUNK]
    scores = squares - 2 * part @ theirs.T
    best[start : start + _CHUNK] = scores.argmin(1)
    distances[start : start + _CHUNK] = scores.min(1) + np.square(part).sum(1)
  matches = np.zeros((*touched.shape, 2), int)
  matches[touched] = sources[best]
  return matches, distances


def _refine(filled, touched, known, matches):
  """The same from matches known roughly: each pixel tries its own and those that would suit its neighbours."""
  padded = _pad(filled)
  flat, width = padded.reshape(-1, filled.shape[-1]), padded.shape[1]
  # Places are counted along the rows of the padded picture, beyond whose border nothing is touched or known.
  is_touched, is_known = (np.pad(where, _RADIUS).ravel() for where in (touched, known))
  matched = np.pad((matches[..., 0] + _RADIUS) * width + matches[..., 1] + _RADIUS, _RADIUS).ravel()

  def refine_part(places):
    best, distances = places.copy(), np.full(len(places), np.inf, np.float32)
    tried_before = []
    for step in (0, -width, width, -1, 1):
      beside = np.where(is_touched[places + step], places + step, places)
      tried = matched[beside] - (beside - places)
      # Neighbours mostly go together: what was tried already is no better now.
      is_new = is_known[tried]
      for before in tried_before:
        is_new &= tried != before
      tried_before.append(tried)
      rows, sums = _compare(flat, width, places, tried, np.flatnonzero(is_new), distances)
      distances[rows], best[rows] = sums, tried[rows]
    # What found nothing copies itself, and counts for nothing.
    return best, distances

  halves = _both(refine_part, np.flatnonzero(is_touched))
  best, distances = (np.concatenate(parts) for parts in zip(*halves, strict=True))
  found = np.zeros_like(matches)
  found[touched] = np.stack(np.divmod(best, width), -1) - _RADIUS
  return found, distances


def _compare(flat, width, own, other, rows, distances):
  """Of the rows of places `own` and `other` [n] those whose patches are nearer than `distances` [n], and how near."""
  order = _AROUND[::8] + [place for i, place in enumerate(_AROUND) if i % 8]
  own, other = own[rows], other[rows]
  sums = np.zeros(len(rows), np.float32)
  for number, (dy, dx) in enumerate(order, 1):
    difference = flat.take(own + (dy * width + dx), 0) - flat.take(other + (dy * width + dx), 0)
    sums += np.einsum("nc,nc->n", difference, difference)
    if number in (7, 21, len(order)):  # most are further already
      near = np.flatnonzero(sums < distances[rows])
      rows, own, other, sums = rows[near], own[near], other[near], sums[near]
  return rows, sums


def _both(work, items):
  """What `work` makes of the two halves of a sequence, by two threads; NumPy lets both run."""
  middle = len(items) // 2
  with ThreadPoolExecutor(2) as pool:
    return list(pool.map(work, (items[:middle], items[middle:])))


def _vote(filled, hole, touched, matches, distances):
  """Holes filled with the mean of what the matches of all pixels around say."""
  (rows, columns), channels = touched.shape, filled.shape[-1]
  finite = distances[np.isfinite(distances)]
  usual = np.percentile(finite, 75) + 1e-6 if len(finite) else 1.0
  depth = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, 3)[touched]
  weights = np.zeros((rows, columns, channels + 1), np.float32)
  weights[touched] = (np.exp(-distances / (2 * usual)) * _INWARDS**-depth)[:, None]
  padded = _pad(filled)
  width = padded.shape[1]
  # With a one beside the colours the weights are added up with them.
  flat = np.concatenate([padded, np.ones_like(padded[..., :1])], -1).reshape(-1, channels + 1)
  other = (matches[..., 0] + _RADIUS) * width + matches[..., 1] + _RADIUS

  def add_up(shifts):
    sums = np.zeros((*padded.shape[:2], channels + 1), np.float32)
    for dy, dx in shifts:
      top, left = _RADIUS + dy, _RADIUS + dx
      sums[top : top + rows, left : left + columns] += weights * flat.take(other + (dy * width + dx), 0)
    return sums

  first, second = _both(add_up, _AROUND)
  sums = (first + second)[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS]
  counted = sums[..., -1:]
  return np.where(hole[..., None] & (counted > 1e-20), sums[..., :-1] / np.maximum(counted, 1e-20), filled)


def _pad(filled):
  return cv2.copyMakeBorder(filled, _RADIUS, _RADIUS, _RADIUS, _RADIUS, cv2.BORDER_REFLECT)
