"""The camera of a simulated scene: what happens to the light on its way to a stored picture.

    camera = sample_camera(rng)
    frame = camera.expose(canvas, 12.5)

Light passes the lens (softness, vignetting, veiling glare), is exposed and white balanced, collects sensor noise,
is brought to the response curve and colours of the camera, and is stored, sometimes as JPEG. `defocus` is for what
stands behind the things in focus.
"""

import dataclasses

import cv2
import numpy as np

STEPS = 2048  # entries of the response table over scene levels 0 .. STEPS * LEVEL
LEVEL = 0.25  # scene levels per entry: the table reaches twice the white of a picture
DEMOSAIC = 0.45  # pixels; neighbouring pixels of a real sensor share some noise


@dataclasses.dataclass(frozen=True)
class Camera:
  """How one camera sees one scene; all but the noise is the same for every frame.

  Attributes:
    softness: deviation of the lens blur in pixels.
    vignette: light falls to 1 / (1 + this) half a diagonal from `center`.
    center: (x, y) where the light is brightest, as shares of the picture.
    veil: share of light that is glare.
    veil_color: [3] of the glare, 0..255.
    gain: [3] exposure and white balance, on levels.
    gamma, contrast: of the response curve.
    saturation: 1 keeps colours.
    read_noise, shot_noise: deviations at black and of white, in levels of 255 before the curve.
    seed: of the noise.
    jpeg_quality: 1 to 100, 0 for none.
  """

  softness: float
  vignette: float
  center: tuple[float, float]
  veil: float
  veil_color: tuple[float, ...]
  gain: tuple[float, ...]
  gamma: float
  contrast: float
  saturation: float
  read_noise: float
  shot_noise: float
  seed: int
  jpeg_quality: int

  def expose(self, canvas: np.ndarray, time: float) -> np.ndarray:
    """Takes the picture of `canvas` [h w 3] float32 (RGB, about 0..255) at `time` in frames: [h w 3] uint8 RGB.

    Pure: the noise is drawn from the camera's seed and `time`, so equal arguments give equal pictures.
    """
    light = canvas if canvas.dtype == np.float32 else canvas.astype(np.float32)
    if self.softness > 0:
      light = cv2.GaussianBlur(light, (0, 0), self.softness)
    light = light * self._falloff(*canvas.shape[:2])[..., None]
    light += np.float32(self.veil) * np.array(self.veil_color, np.float32)
    clean, deviation = self._respond(light)
    clean += deviation * self._draw_noise(canvas.shape, time)
    luma = np.array([0.299, 0.587, 0.114]) * (1 - self.saturation)
    picture = cv2.transform(clean, np.tile(luma, (3, 1)) + self.saturation * np.eye(3))
    picture = np.clip(picture + 0.5, 0, 255, out=picture).astype(np.uint8)
    if not self.jpeg_quality:
      return picture
    stored = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, self.jpeg_quality])[1]
    decoded = cv2.imdecode(stored, cv2.IMREAD_COLOR)
    assert decoded is not None
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)

  def response(self, levels: np.ndarray) -> np.ndarray:
    """The response to scene `levels` [n] of each channel, before saturation and noise: [n 3] float64, 0..255."""
    x = np.maximum(np.asarray(levels, float), 0)[:, None] / 255 * np.array(self.gain)
    x = x**self.gamma
    # A shoulder instead of a hard clip: levels above the knee approach white.
    knee = 0.8
    x = np.where(x > knee, 1 - (1 - knee) * np.exp(-np.maximum(x - knee, 0) / (1 - knee)), x)
    return 255 * (x + self.contrast * x * (1 - x) * (2 * x - 1))

  def noise_deviation(self, levels: np.ndarray) -> np.ndarray:
    """Deviation of the noise of each channel at scene `levels` [n], before saturation: [n 3] float64, in levels.

    In light, which is about the square of a level, shot noise grows as the root; on levels that is a constant, to
    which read noise adds in the dark. The slope of the response then scales both.
    """
    levels = np.asarray(levels, float)
    slope = self.response(levels + 0.5) - self.response(levels - 0.5)
    dark = self.read_noise * np.exp(-levels / 48)
    return np.minimum(slope, 2) * np.hypot(self.shot_noise, dark)[:, None]

  def _respond(self, light: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    levels = np.arange(STEPS) * LEVEL
    place = np.clip(light * np.float32(1 / LEVEL) + np.float32(0.5), 0, STEPS - 1).astype(np.int32)
    curves = np.stack([self.response(levels), self.noise_deviation(levels)]).astype(np.float32)
    clean, deviation = np.empty_like(light), np.empty_like(light)
    for channel in range(3):
      clean[..., channel] = curves[0, :, channel].take(place[..., channel])
      deviation[..., channel] = curves[1, :, channel].take(place[..., channel])
    return clean, deviation

  def _falloff(self, height: int, width: int) -> np.ndarray:
    """Share of light that reaches each pixel: [h w] float32, after glare takes its part."""
    diagonal = np.hypot(height, width)
    x = (np.arange(width) - self.center[0] * (width - 1)) / (0.5 * diagonal)
    y = (np.arange(height) - self.center[1] * (height - 1)) / (0.5 * diagonal)
    radius = (x**2).astype(np.float32) + (y**2).astype(np.float32)[:, None]
    return (1 - self.veil) / (1 + self.vignette * radius)

  def _draw_noise(self, shape, time: float) -> np.ndarray:
    """Noise [h w 3] float32 of unit deviation, correlated between neighbours as after demosaicing."""
    moment = np.float64(time + 0.0).view(np.uint64)  # + 0.0: minus zero is time zero too
    rng = np.random.default_rng([self.seed, int(moment)])
    noise = rng.standard_normal((shape[0] + 2, shape[1] + 2, 3), dtype=np.float32)
    kernel = cv2.getGaussianKernel(3, DEMOSAIC)
    kernel /= np.sqrt((kernel**2).sum())  # keeps the deviation
    return cv2.sepFilter2D(noise, -1, kernel, kernel)[1:-1, 1:-1]


def sample_camera(rng: np.random.Generator) -> Camera:
  """Draws a camera and its settings: between two exposures of one still canvas mostly 40 to 50 dB (PSNR)."""
  exposure, warmth, tint = np.exp(rng.normal(0, 0.1)), rng.normal(0, 0.03), rng.normal(0, 0.01)
  balance = np.exp([warmth, tint, -warmth])
  noise = np.exp(rng.uniform(np.log(0.3), np.log(1.4)))
  hazy = rng.random() < 0.35
  glow = rng.uniform(170, 235)
  return Camera(
    softness=float(rng.uniform(0.25, 0.65)),
    vignette=float(rng.choice([0.0, rng.uniform(0.03, 0.3)])),
    center=(float(rng.uniform(0.4, 0.6)), float(rng.uniform(0.4, 0.6))),
    veil=float(rng.uniform(0.02, 0.14) if hazy else rng.uniform(0, 0.02)),
    veil_color=tuple(float(glow * v) for v in np.exp(rng.normal(0, 0.05, 3))),
    gain=tuple(float(v) for v in exposure * balance),
    gamma=float(np.exp(rng.normal(0, 0.12))),
    contrast=float(rng.uniform(-0.2, 0.45)),
    saturation=float(np.clip(rng.normal(1.0, 0.16), 0.55, 1.4)),
    read_noise=float(noise * rng.uniform(0.3, 1.2)),
    shot_noise=float(noise),
    seed=int(rng.integers(2**32)),
    jpeg_quality=int(rng.integers(80, 98)) if rng.random() < 0.5 else 0,
  )


def defocus(image: np.ndarray, radius: float, *, glow: float = 0.2) -> np.ndarray:
  """Puts `image` [h w 3] (0..255) out of focus: each point becomes a disc of `radius` pixels: [h w 3] float32.

  Light adds up, levels do not, so the blur runs on squared levels; the less `glow` (> 0), the brighter the whites
  are taken to be, and the more they stand out as discs. An even picture keeps its colour; under half a pixel nothing
  is blurred.
  """
  image = np.clip(np.asarray(image, np.float32), 0, 255)
  if radius < 0.5:
    return image
  h, w = image.shape[:2]
  light = np.square(image * np.float32(1 / 255))
  light /= 1 + glow - light
  shrink = min(max(1.0, radius / 4), min(h, w) / 2)  # a large disc needs few pixels
  if shrink > 1:
    light = cv2.resize(light, (max(1, round(w / shrink)), max(1, round(h / shrink))), interpolation=cv2.INTER_AREA)
  r = radius / shrink
  reach = np.arange(-int(r + 1), int(r + 1) + 1)
  disc = np.clip(r + 0.5 - np.hypot(reach, reach[:, None]), 0, 1).astype(np.float32)
  light = cv2.filter2D(light, -1, disc / disc.sum(), borderType=cv2.BORDER_REFLECT)
  if shrink > 1:
    light = cv2.resize(light, (w, h), interpolation=cv2.INTER_LINEAR)
  np.maximum(light, 0, out=light)
  return 255 * np.sqrt((1 + glow) * light / (1 + light))


def sample_radius(rng: np.random.Generator, width: int, low: float, high: float) -> float:
  """A radius of defocus in pixels, `low` to `high` for a picture 256 wide."""
  return float(np.exp(rng.uniform(np.log(low), np.log(high)))) * width / 256
