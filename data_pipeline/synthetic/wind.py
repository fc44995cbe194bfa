"""The wind of a simulated scene and the oscillators that it drives: everything in a scene that depends on time.

Every displacement in a scene is a sum of fixed vector fields, each times a function of time alone ("course"), so it
is exact at every time for every pixel, and so is its spectrum. From one oscillator angle or amplitude `a(t)`, with
`D = a(t) - a(0)`, four courses are made: D, sin D, cos D - 1 and D**2; all are zero at frame 0, where the picture is
at rest. Rotations (sin, cos - 1) and length-preserving bending (D, D**2) are therefore exact to the order written.

An oscillator is solved in the frequency domain: `a(f) = force(f) / (1 - r**2 + 2i zeta r)`, `r = f / f0`. Sources of
the constants, see docs/simulation.md: the -5/3 power law of turbulence (Kolmogorov 1941; Kaimal et al. 1972), loss of
coherence with frequency and distance (Davenport 1961), fast turbulence in the wakes of plants (Finnigan 2000),
damping of plants (de Langre 2008; Spatz and Theckes 2013).
"""

from typing import TypeVar

import numpy as np

Index = TypeVar("Index", int, np.ndarray)

LINEAR, SINE, COSINE, SQUARE = range(4)
NUM_BANDS = 32  # twice what a model keeps, so that truncating a spectrum loses something
NUM_COLUMNS = 17  # places across the picture where the wind is drawn
TURBULENCE_SLOPE = -5 / 6  # of a gust's amplitude; -5/3 of its power
WAKE_SLOPE = 0.0  # of the turbulence behind leaves and stems, which is small and fast
COHERENCE_DECAY = 3.0  # C in exp(-C f distance / speed), along the wind
DAMPING = (0.08, 0.5)  # ratio zeta
POKED_SHARE = 0.2


class Wind:
  """Random time courses of damped oscillators in one gusty wind that crosses the picture (driven form of section 7).

  Half of the scenes are exactly periodic over the window, the others use frequencies between the bands. In a fifth
  there is hardly any wind, but things were pulled aside before frame 0 and swing freely until they rest.

  Args:
    rng: the scene's random stream.
    num_frames: frames in the window.
    fps: frames per second.
    width: of the picture in pixels.
  """

  def __init__(self, rng: np.random.Generator, *, num_frames: int, fps: float, width: int):
    self.rng, self.num_frames, self.fps, self.width = rng, num_frames, fps, width
    cycles = np.arange(1, NUM_BANDS + 1, dtype=np.float64)
    if rng.random() < 0.5:
      cycles = cycles + rng.uniform(-0.5, 0.5, NUM_BANDS)
      cycles[0] = rng.uniform(0.25, 0.6)  # a lull longer than the window
      cycles[1] = rng.uniform(1.0, 2.2)
    self.cycles, self.hz = cycles, cycles * fps / num_frames
    self.poked = rng.random() < POKED_SHARE
    self.coherence = rng.uniform(0.6, 0.98)
    crossing = np.exp(rng.uniform(np.log(0.3), np.log(4.0)))  # seconds that the wind takes across the picture
    self._delay = crossing * rng.choice([-1, 1]) / width  # seconds per pixel
    self._gusts = self._draw_gusts(crossing)
    self._coefficients: list[np.ndarray] = []
    self._free: list[tuple[complex, complex]] = []  # amplitude and (decay + i speed) per second

  def _noise(self, slope: float, *shape: int) -> np.ndarray:
    noise = self.rng.normal(size=(*shape, NUM_BANDS)) + 1j * self.rng.normal(size=(*shape, NUM_BANDS))
    spectrum = self.hz**slope
    return noise * (spectrum / np.sqrt(np.sum(spectrum**2)))

  def _draw_gusts(self, crossing: float) -> np.ndarray:
    """The wind's force [bands columns] over the picture and a quarter beyond either side, without its travel."""
    x = np.linspace(-0.25, 1.25, NUM_COLUMNS)
    apart = np.abs(x[:, None] - x)
    noise = self._noise(TURBULENCE_SLOPE, NUM_COLUMNS).T
    gusts = np.empty_like(noise)
    for band, hz in enumerate(self.hz):
      coherence = np.exp(-COHERENCE_DECAY * hz * crossing * apart)
      gusts[band] = np.linalg.cholesky(coherence + 1e-9 * np.eye(NUM_COLUMNS)) @ noise[band]
    return gusts

  def _gust_at(self, x: float) -> np.ndarray:
    column = np.rint((x / self.width + 0.25) / 1.5 * (NUM_COLUMNS - 1))
    there = self._gusts[:, int(np.clip(column, 0, NUM_COLUMNS - 1))]
    return there * np.exp(-2j * np.pi * self.hz * self._delay * x)

  def add_driver(self, hz: float, *, x: float, scale: float, damping: tuple[float, float] = DAMPING) -> int:
    """Adds an oscillator and returns its number.

    Args:
      hz: natural frequency.
      x: column where it stands, pixels.
      scale: about the largest |D| that it reaches, radians or pixels as its user reads it.
      damping: range of the damping ratio.
    """
    low, high = np.log(damping)
    zeta = np.exp(self.rng.uniform(low, high))
    r = self.hz / hz
    force = self.coherence * self._gust_at(x) + np.sqrt(1 - self.coherence**2) * self._noise(WAKE_SLOPE)
    c = force / (1 - r**2 + 2j * zeta * r)
    level = 0.33 * scale / max(np.sqrt(0.5 * np.sum(np.abs(c) ** 2)), 1e-9)
    free = (0j, 0j)
    if self.poked:
      level *= 0.06
      pull = 0.5 * scale * self.rng.choice([-1, 1]) * self.rng.uniform(0.3, 1.0)
      speed = 2 * np.pi * hz
      free = (complex(pull), complex(-zeta * speed, speed * np.sqrt(1 - zeta**2)))
    self._coefficients.append(c * level)
    self._free.append(free)
    return len(self._coefficients) - 1

  def add_quadrature(self, driver: int) -> int:
    """Adds the course a quarter cycle behind `driver`: the pair carries a travelling wave."""
    self._coefficients.append(-1j * self._coefficients[driver])
    amplitude, speed = self._free[driver]
    self._free.append((-1j * amplitude, speed))
    return len(self._coefficients) - 1

  def courses(self, times: np.ndarray) -> np.ndarray:
    """Evaluates all courses at `times` [n] in frames: [n 1 + 4 drivers] float64; column 0 is zero."""
    times = np.asarray(times, np.float64)
    if not self._coefficients:
      return np.zeros((len(times), 1))
    at = np.concatenate([[0.0], times])
    waves = np.exp(2j * np.pi * at[:, None] / self.num_frames * self.cycles)
    amplitude = np.einsum("tj,cj->tc", waves, np.stack(self._coefficients)).real
    if self.poked:
      pull, speed = np.array(self._free).T
      amplitude += (pull * np.exp(at[:, None] / self.fps * speed)).real
    d = amplitude[1:] - amplitude[:1]
    four = np.stack([d, np.sin(d), np.cos(d) - 1, d**2], -1).reshape(len(d), -1)
    return np.concatenate([np.zeros((len(d), 1)), four], 1)


def course_index(driver: Index, kind: int) -> Index:
  """Column of `Wind.courses` with the LINEAR, SINE, COSINE or SQUARE course of a driver, or of several [...]."""
  return 1 + 4 * driver + kind
