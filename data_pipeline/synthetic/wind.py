"""The wind of a simulated scene and what it drives: random time courses of damped oscillators.

Every displacement in a scene is a sum of fixed vector fields, each times a function of time alone ("course"), so it
is exact at every time for every pixel. From one oscillator angle or amplitude `a(t)`, with `D = a(t) - a(0)`, four
courses are made: D, sin D, cos D - 1 and D**2; all are zero at frame 0, where the picture is at rest. Rotations
(sin, cos - 1) and length-preserving bending (D, D**2) are therefore exact to the order written there.
"""

import numpy as np

LINEAR, SINE, COSINE, SQUARE = range(4)
NUM_BANDS = 24  # more than any model keeps, so that truncating a spectrum loses something


class Wind:
  """Random time courses of damped oscillators in one shared, gusty wind (driven form of section 7).

  Args: rng; num_frames and fps of the window; width of the picture in pixels. Half of the scenes are exactly
  periodic over the window, the others use frequencies between the bands; a few die away as after a poke.
  """

  def __init__(self, rng: np.random.Generator, *, num_frames: int, fps: float, width: int):
    self.rng, self.num_frames = rng, num_frames
    cycles = np.arange(1, NUM_BANDS + 1, dtype=np.float64)
    if rng.random() < 0.5:
      cycles = cycles + rng.uniform(-0.5, 0.5, NUM_BANDS)
    self.cycles, self.hz = cycles, cycles * fps / num_frames
    self.gust = self._noise()
    self.coherence = rng.uniform(0.4, 0.95)
    self.delay = rng.uniform(-1.2, 1.2) / width  # seconds a gust takes per pixel
    self.decay = rng.uniform(1.0, 3.0) if rng.random() < 0.15 else 0.0
    self.coefficients: list[np.ndarray] = []

  def _noise(self) -> np.ndarray:
    noise = self.rng.normal(size=NUM_BANDS) + 1j * self.rng.normal(size=NUM_BANDS)
    return noise * self.hz**-0.8

  def add_driver(self, hz: float, *, x: float, scale: float) -> int:
    """Adds an oscillator of natural frequency `hz` standing at column `x`; returns its number.

    `scale` is about the largest |D| it reaches, in radians or pixels as its user reads it.
    """
    q = self.rng.uniform(1.5, 6.0)
    response = hz**2 / (hz**2 - self.hz**2 + 1j * hz * self.hz / q)
    shared = self.gust * np.exp(-2j * np.pi * self.hz * self.delay * x)
    force = self.coherence * shared + np.sqrt(1 - self.coherence**2) * self._noise()
    c = force * response
    self.coefficients.append(c * (0.33 * scale / max(np.sqrt(0.5 * np.sum(np.abs(c) ** 2)), 1e-9)))
    return len(self.coefficients) - 1

  def add_quadrature(self, driver: int) -> int:
    """Adds the course a quarter cycle behind `driver`: the pair carries a travelling wave."""
    self.coefficients.append(-1j * self.coefficients[driver])
    return len(self.coefficients) - 1

  def courses(self, times: np.ndarray) -> np.ndarray:
    """Evaluates all courses at `times` [n] in frames: [n 1 + 4 drivers] float64; column 0 is zero."""
    times = np.asarray(times, np.float64)
    if not self.coefficients:
      return np.zeros((len(times), 1))
    at = np.concatenate([[0.0], times]) / self.num_frames
    waves = np.exp(2j * np.pi * at[:, None] * self.cycles - self.decay * at[:, None])
    amplitude = np.einsum("tj,cj->tc", waves, np.stack(self.coefficients)).real
    d = amplitude[1:] - amplitude[:1]
    four = np.stack([d, np.sin(d), np.cos(d) - 1, d**2], -1).reshape(len(d), -1)
    return np.concatenate([np.zeros((len(d), 1)), four], 1)


def course_index(driver: int, kind: int) -> int:
  """Column of `Wind.courses` with this driver's LINEAR, SINE, COSINE or SQUARE course."""
  return 1 + 4 * driver + kind
