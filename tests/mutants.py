"""Breaks the code in one place at a time and expects the tests to notice: a check of the tests themselves.

  python tests/mutants.py            # all, some minutes on two cores
  python tests/mutants.py --list
  python tests/mutants.py --only 3 7

Every mutant is one replacement in a copy of the checkout, for which the named test files must fail. A change of the
code may leave a mutant without its text: `tests/test_mutants.py` says so, and the mutant then needs the new text.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).parents[1]
COPIED = ("gid_jax", "configs", "data_pipeline", "tests", "pyproject.toml")
TIMEOUT = 600


class Mutant(NamedTuple):
  """One mistake.

  Attributes:
    path: file that it is made in, below `gid_jax`.
    old: text that must occur there exactly once.
    new: text that takes its place.
    tests: names of the test files that must notice, without `test_` and `.py`.
  """

  path: str
  old: str
  new: str
  tests: tuple[str, ...]


def mutate(path: str, tests: str, *changes: tuple[str, str]) -> list[Mutant]:
  """Mutants of one file that the same test files must notice."""
  return [Mutant(path, old, new, tuple(tests.split())) for old, new in changes]


MUTANTS = [
  *mutate(
    "motion/spectral.py",
    "spectral",
    ("alone = (bands == 0) | (2 * bands == num_frames)", "alone = bands == 0"),
    ("alone = (bands == 0) | (2 * bands == num_frames)", "alone = 2 * bands == num_frames"),
    ("paired = np.where(2 * bands == spectrum.num_frames, 0.0, rates)", "paired = np.where(bands == 0, 0.0, rates)"),
    ("paired = np.where(2 * np.arange(num_bands) == num_frames, 0.0, weights)", "paired = weights"),
    ("[width / old_width, height / old_height]", "[height / old_height, width / old_width]"),
    ("return total / num_samples", "return total / padded.size"),
    ("return blocks.mean((-4, -2)) / stride", "return blocks.mean((-4, -2))"),
  ),
  *mutate(
    "motion/editing.py",
    "editing",
    ("[[cos, -sin * pixel_aspect], [sin / pixel_aspect,", "[[cos, sin * pixel_aspect], [-sin / pixel_aspect,"),
    ("[[cos, -sin * pixel_aspect], [sin / pixel_aspect,", "[[cos, -sin / pixel_aspect], [sin * pixel_aspect,"),
    ("cv2.erode(weights", "cv2.dilate(weights"),
    ("rows, columns = min(height, mask.shape[0]), min(width, mask.shape[1])", "rows, columns = mask.shape"),
  ),
  *mutate(
    "bundle.py",
    "bundle",
    ("np.frexp(largest)[1] - 15", "np.frexp(largest.max())[1] - 15 + 0 * np.frexp(largest)[1]"),
    ("if not np.isfinite(coefficients).all():", "if np.isnan(coefficients).all():"),
    (' or metadata.get("sha256") != checksum(tensors, text)', ""),
  ),
  *mutate(
    "motion/normalization.py",
    "normalization",
    ("return normalized * jnp.abs(normalized) * _expand(scale)", "return normalized * normalized * _expand(scale)"),
    ("[width, height, width, height]", "[height, width, height, width]"),
    ("magnitudes = jnp.hypot(coefficients[..., :2], coefficients[..., 2:])", "magnitudes = jnp.abs(coefficients)"),
  ),
  *mutate(
    "motion/normalization.py",
    "statistics",
    ("histogram.counts / histogram.counts.sum(1, keepdims=True)", "histogram.counts"),
  ),
  *mutate(
    "motion/splat.py",
    "splat",
    ("inside = finite & (x > -1)", "inside = finite & (x >= 0)"),
    ("return _Landing(first, x - left, y - top, stride)", "return _Landing(first, y - top, x - left, stride)"),
    ("(below * self.stride + beside)", "(beside * self.stride + below)"),
    ("columns * (shares if weights is None else weights)[", "columns * shares["),
    ("exponent = depth - highest[", "exponent = depth - jnp.max(highest) + 0 * highest["),
    ("variance = square - jnp.square(landed[..., :2]).sum(-1, keepdims=True)", "variance = square"),
    ("InverseFlow(-filled[..., :2]", "InverseFlow(filled[..., :2]"),
    ("weights=jnp.exp(-depth))", "weights=jnp.exp(depth))"),
    ("jnp.exp(depth + (_DEPTH_RANGE + _HEADROOM))", "jnp.exp(depth)"),
    ("counted = covered if weights is None else covered * weights", "counted = covered"),
  ),
  *mutate(
    "motion/moving_photo.py",
    "moving_photo",
    ("share * moved + (1 - share) * jnp.stack(colours, -1)", "moved"),
    ("/ _FULL_COVERAGE, 0.0, 1.0) * is_one", "/ _FULL_COVERAGE, 0.0, 1.0)"),
    ("column + u * (width / columns), row + v * (height / rows)", "column + u, row + v"),
    ("inverse._replace(back=back, mass=mass)", "inverse"),
    ("is_whole = jnp.clip((high - steepness) / (high - low), 0.0, 1.0)", "is_whole = 1.0"),
    ('[(0, 0)] * (values.ndim - 2), mode="edge")', "[(0, 0)] * (values.ndim - 2))"),
    ("jnp.asarray(crop(total)) / num_frames", "jnp.asarray(crop(total)) / times.size"),
  ),
  *mutate(
    "motion/modal.py",
    "modal",
    ("return real - jnp.einsum(", "return real + jnp.einsum("),
    ("gamma=damping.alpha + damping.beta * omega**2", "gamma=damping.alpha + damping.beta * omega"),
    ("compliance=_typical(_trace(modes, omega**-2))", "compliance=_typical(_trace(modes, omega**-1))"),
    ("jnp.sqrt(2 * basis.gamma / dt)", "jnp.sqrt(basis.gamma / dt)"),
    ("- offset * basis.omega**2 * sine", "+ offset * basis.omega**2 * sine"),
    ("q=settled + offset * (cosine + half * sine)", "q=settled + offset * cosine"),
    ("softness = jnp.ones_like(basis.omega)", "softness = basis.omega**-2"),
  ),
  *mutate(
    "motion/warp.py",
    "warp",
    ("1 + f * f * (1.5 * f - 2.5)", "1 + f * f * (1.0 * f - 2.0)"),
    ("before = len(weights_x) // 2 - 1", "before = len(weights_x) // 2"),
    ("x, y = jnp.clip(x, 0, width - 1), jnp.clip(y, 0, height - 1)", "y = jnp.clip(y, 0, height - 1)"),
    ("(x >= 0) & (x <= width - 1)", "(x >= 0) & (x < width - 1)"),
    ("np.arange(-before, behind + 1) - phases / DENSITY", "np.arange(-before, behind + 1) + phases / DENSITY"),
    ("lanczos(places - 1 / DENSITY) + lanczos(places + 1 / DENSITY)", "2 * lanczos(places)"),
    ("green << _BITS | blue << 2 * _BITS", "blue << _BITS | green << 2 * _BITS"),
    ("* _LEVELS + 0.5, 0", "* _LEVELS, 0"),
    ("(row + below) * stride + column + beside]", "(row + beside) * stride + column + below]"),
    ("jnp.where(below, down, 1 - down)", "jnp.where(below, 1 - down, down)"),
    ("DENSITY * jnp.clip(a, 0, size - 1)", "DENSITY * jnp.clip(a, 0, size)"),
  ),
  *mutate(
    "diffusion/schedule.py",
    "diffusion",
    ("np.linspace(beta_start**0.5, beta_end**0.5, num_steps, dtype=np.float64) ** 2",
     "np.linspace(beta_start, beta_end, num_steps, dtype=np.float64)"),
    ("jnp.arange(number) / number", "jnp.arange(number) / (number + 1)"),
    ('"v": alpha * noise - sigma * clean, "x0": clean}[', '"v": alpha * noise + sigma * clean, "x0": clean}['),
    ('"v": 1 / alpha, "x0": -sigma / alpha}', '"v": 1.0, "x0": -sigma / alpha}'),
    ('"v": 1 / alpha, "x0": -sigma / alpha}', '"v": 1 / alpha, "x0": sigma / alpha}'),
    ("total // num_samples + 1, total - 1", "total // num_samples, total - 1"),
    ("previous = np.concatenate([[0], ascending[:-1]])", "previous = np.concatenate([[-1], ascending[:-1]])"),
    ("total / num_samples).astype(int) - 1", "total / num_samples).astype(int) - 2"),
    ("recurrences < recurrences - 1, timesteps", "recurrences < recurrences - 2, timesteps"),
    ("power = (power / power.mean())", "power = (power / power.max())"),
    ("np.arange(height)[:, None] / (2 * height)", "np.arange(height)[:, None] / height"),
  ),
  *mutate(
    "diffusion/sampler.py",
    "sampler",
    ("jnp.sqrt((1 - target) / (1 - signal) * (1 - signal / target))", "jnp.sqrt((1 - target) * (1 - signal / target))"),
    ("jnp.maximum(1 - target - spread**2, 0.0)", "jnp.maximum(1 - target, 0.0)"),
    ("jnp.where(timestep < 0, 1.0, schedule", "jnp.where(timestep < 0, schedule.signal[0], schedule"),
    ("jnp.where(is_first, 1.0, 2 * (levels[1] - levels[0]))", "jnp.where(is_first, 1.0, levels[1] - levels[0])"),
    ("is_first = (draw.timestep <= timestep) | (previous < 0)", "is_first = draw.timestep < timestep"),
    ("-jnp.sqrt(signal / (1 - signal)) * share", "jnp.sqrt(signal / (1 - signal)) * share"),
    ("ratio = _signal(schedule, noisier) / _signal(schedule, timestep)", "ratio = _signal(schedule, noisier)"),
    ("(keys, Draw(latents, clean, step.timesteps))", "(keys, Draw(latents, clean, step.previous))"),
    ("keys, step_keys, back_keys = jnp.moveaxis", "_, step_keys, back_keys = jnp.moveaxis"),
    ("jax.vmap(lambda key: jax.random.normal(key, shape))(keys)", "jax.random.normal(keys[0], (len(keys), *shape))"),
  ),
  *mutate(
    "diffusion/guidance.py",
    "guidance",
    ("(1 + weight) * conditional - weight * unconditional", "(1 - weight) * conditional + weight * unconditional"),
    ("(1 + weight) * conditional - weight * unconditional", "weight * conditional + (1 - weight) * unconditional"),
    ("jnp.sqrt(1 - schedule.signal[timestep]) * gradient", "jnp.sqrt(schedule.signal[timestep]) * gradient"),
    ("shift_noise(schedule, output, shift, timestep)", "shift_noise(schedule, output, -shift, timestep)"),
    ("return loss_fn(clean).sum(), output", "return loss_fn(clean).mean(), output"),
    ("split_prediction(schedule, output,", "split_prediction(schedule, jax.lax.stop_gradient(output),"),
    ("np.array([0, spectrum.num_frames - 1])", "np.array([0, spectrum.num_frames])"),
    ("velocity[1] - velocity[0]", "velocity[1] + velocity[0]"),
    ("velocity[1] - velocity[0]", "motion[1] - motion[0]"),
    ("spectrum.fps * jnp.abs(velocity)", "jnp.abs(velocity)"),
    ("(cell**2 * (height * width) ** 0.5)", "(cell**2 * (height * width))"),
  ),
  *mutate(
    "data/augmentation.py",
    "augmentation",
    ("np.kron(np.eye(fields.shape[-1] // 2), np.linalg.inv(matrix[:, :2]))", "np.eye(fields.shape[-1])"),
    ("np.linalg.inv(matrix[:, :2])", "matrix[:, :2]"),
    ("np.linalg.inv(matrix[:, :2])", "np.linalg.inv(matrix[:, :2] / abs(np.linalg.det(matrix[:, :2])) ** 0.5)"),
    ("np.array([[cos, sin], [-sin, cos]]) / zoom", "np.array([[cos, -sin], [sin, cos]]) / zoom"),
    ("abs(sin) * max(width / height, height / width)", "abs(sin)"),
    ("np.array([[-1.0, 0.0, width], [0.0, 1.0, 0.0]])", "np.array([[-1.0, 0.0, width - 1], [0.0, 1.0, 0.0]])"),
    ("matrix[:, :2] @ [0.5, 0.5] - 0.5", "matrix[:, :2] @ [0.5, 0.5] - [0.5, 0.5] / abs(matrix[0, 0])"),
    ("matrix / [1, 1, stride]", "matrix"),
    (" / np.float32(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))", ""),
    ("mirror, degrees = rng.random() < ranges.flip, ", "mirror, degrees = rng.random() > ranges.flip + 0.2, "),
    ("[width - crop[1] / zoom, height - crop[0] / zoom]", "[width - crop[1], height - crop[0]]"),
    ("offset = offset // 2 * 2", "offset = offset // 1"),
    ("((size[1] - crop[1]) // 4 * 2, (size[0] - crop[0]) // 4 * 2)", "(0, 0)"),
    ("imaginary * sin, real * sin + imaginary * cos", "imaginary * sin, imaginary * cos - real * sin"),
    ("turned[0, ..., :2] -= 2 *", "turned[0, ..., :2] -="),
    ("turned[..., 2:] *= -1", "turned[..., :2] *= -1"),
    ("mean * (1 - contrast)", "mean * (contrast - 1)"),
    ("(np.arange(256) / 255) ** gamma", "(np.arange(256) / 255) ** (1 / gamma)"),
  ),
  *mutate(
    "training/losses.py",
    "losses",
    ("jnp.exp(log_variance) - 1.0 - log_variance)", "jnp.exp(log_variance) - 1.0)"),
    ("0.5 * (mean**2", "(mean**2"),
    (".sum(axis=(1, 2, 3)).mean()", ".mean()"),
    ("jnp.abs(jnp.diff(error, axis=2)).mean() + jnp.abs(jnp.diff(error, axis=1)).mean()",
     "jnp.abs(jnp.diff(error, axis=2)).mean()"),
    ("for scale in range(num_scales):", "for scale in range(num_scales - 1):"),
    ("error, total = output - target,", "error, total = output + target,"),
    ("return ((output - target) ** 2).mean()", "return jnp.abs(output - target).mean()"),
    ("jax.lax.stop_gradient(target)", "target"),
    ("jnp.clip(output, 0, 1)", "output"),
    ("in terms.items() if name in weights", "in sorted(terms.items()) if name in weights"),
    ("[weights[name] * term for", "[abs(weights[name] * term) for"),
  ),
  *mutate(
    "training/objectives.py",
    "objectives",
    ("lambda seen: kl(seen.mean, seen.log_variance)", "lambda seen: 0 * kl(seen.mean, seen.log_variance)"),
    ("gradient_consistency(seen.output, seen.target, num_scales=loss.gradient_scales)", "l1(seen.output, seen.target)"),
    ("1 - settings.condition_drop", "1.0"),
    ("1 - settings.condition_drop", "settings.condition_drop"),
    ("one_timestep = coordinated or sizes.volume", "one_timestep = sizes.volume"),
    ("training_target(schedule, latents, noise, timesteps)", "noise"),
    ('"structure": _make_structure(loss),', '"structure": lambda seen: 0.0,'),
    ('"encoder/")) and FROZEN_TRUNK not in path', '"encoder/"))'),
    ("return denoiser.coordination_path in path", 'return "attention" in path'),
  ),
  *mutate(
    "training/train_state.py",
    "train_state",
    ("(1 + state.step) / (10 + state.step)", "state.step / (10 + state.step)"),
    ("decay * ema + (1 - decay) * new", "(1 - decay) * ema + decay * new"),
    ("* new, state.ema_params, params)", "* new, state.ema_params, state.params)"),
    ("sum_ + part.astype(jnp.float32) / num_steps", "sum_ + part.astype(jnp.float32)"),
    ("jax.random.fold_in(key, index)", "key"),
    ("jax.random.fold_in(key, state.step)", "key"),
  ),
  *mutate(
    "models/renderer.py",
    "renderer",
    ("mask = jax.nn.sigmoid(logit) * _cover(scales[0].mass)", "mask = jax.nn.sigmoid(logit)"),
    ("Rendering(mask * warped + (1 - mask) * synthesis,", "Rendering((1 - mask) * warped + mask * synthesis,"),
    ("cover * scale.rgb + (1 - cover) *", "cover * scale.rgb + 0 *"),
  ),
  *mutate(
    "models/plate.py",
    "plate",
    ("jnp.asarray(hole) > 0, smooth + correction, image)", "jnp.asarray(hole) >= 0, smooth + correction, image)"),
    ("jnp.asarray(hole) > 0, smooth + correction, image)", "jnp.asarray(hole) > 0, correction, image)"),
  ),
  *mutate(
    "motion/patches.py",
    "plate",
    ("scores = squares - 2 * part @ theirs.T", "scores = squares + 2 * part @ theirs.T"),
    ("hole[..., None] & (counted > 1e-20)", "(counted > 1e-20)"),
  ),
  *mutate(
    "motion/resize.py",
    "resize",
    ("/ max(step, 1.0)", ""),
    ("1.5 * distance - 2.5) * distance**2 + 1", "1.25 * distance - 2.25) * distance**2 + 1"),
    ("weights / weights.sum(axis=1, keepdims=True)", "weights"),
  ),
  *mutate(
    "models/vit.py",
    "vit",
    ("x[:, 1:].reshape(-1, rows, columns, WIDTH)",
     "x[:, 1:].reshape(-1, columns, rows, WIDTH).swapaxes(1, 2)"),
    ("x[:, 1:].reshape(-1, rows, columns, WIDTH)", "x[:, :-1].reshape(-1, rows, columns, WIDTH)"),
    ("x.reshape(b, rows * columns, WIDTH)", "x.swapaxes(1, 2).reshape(b, rows * columns, WIDTH)"),
    ("jnp.concatenate([first, x.reshape(b, rows * columns, WIDTH)], axis=1)",
     "jnp.concatenate([x.reshape(b, rows * columns, WIDTH), first], axis=1)"),
    ("class_token + positions[:, :1]", "class_token"),
    ("resize_positions(grid, rows, columns)", "resize_positions(grid.swapaxes(0, 1), rows, columns)"),
    ("_CUBIC_SLOPE = -0.75", "_CUBIC_SLOPE = -0.5"),
    ("(np.arange(new) + 0.5) * old / new - 0.5", "np.arange(new) * old / new"),
    ("np.clip(first + tap, 0, old - 1)", "(first + tap) % old"),
    ("_EPSILON = 1e-6", "_EPSILON = 1e-5"),
    ("approximate=False", "approximate=True"),
    ('scale("scale2") * x', "x"),
    ("seen[-1] = nn.LayerNorm(", "x = nn.LayerNorm("),
    ("_DEVIATIONS[layer - 1]", "_DEVIATIONS[0 * layer]"),
    ("round(side * scale / PATCH)", "int(side * scale / PATCH)"),
    ('jnp.clip(resize(image, height, width, method="cubic"), 0, 1)', 'resize(image, height, width, method="cubic")'),
    ("transpose(2, 3, 1, 0)", "transpose(3, 2, 1, 0)"),
  ),
]  # fmt: skip


def find_problem(mutant: Mutant, checkout: Path) -> str:
  """What keeps a mutant from being made in a checkout; "" for nothing."""
  path = checkout / "gid_jax" / mutant.path
  if not path.exists():
    return f"there is no gid_jax/{mutant.path}"
  count = path.read_text().count(mutant.old)
  if count != 1:
    return f"gid_jax/{mutant.path} holds {mutant.old!r} {count} times, not once"
  missing = [name for name in mutant.tests if not (checkout / "tests" / f"test_{name}.py").exists()]
  return f"there is no tests/test_{missing[0]}.py" if missing else ""


def run_tests(checkout: Path, tests: tuple[str, ...]) -> subprocess.CompletedProcess:
  """Runs some test files of a checkout up to the first failure."""
  names = [f"tests/test_{name}.py" for name in tests]
  command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *names]
  environment = os.environ | {"PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"}
  return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=TIMEOUT)


def is_caught(mutant: Mutant, checkout: Path) -> bool:
  """Makes a mutant in a copied checkout, runs its tests, and takes it back.

  Raises:
    RuntimeError: the tests could not be run at all.
  """
  path = checkout / "gid_jax" / mutant.path
  text = path.read_text()
  path.write_text(text.replace(mutant.old, mutant.new))
  try:
    result = run_tests(checkout, mutant.tests)
  except subprocess.TimeoutExpired:
    return True  # it never ends: noticed
  finally:
    path.write_text(text)
  # pytest's own words: 0 all passed, 1 some failed, 2 a file could not be imported.
  if result.returncode not in (0, 1):
    raise RuntimeError(result.stdout + result.stderr)
  return result.returncode == 1


def main():
  parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
  parser.add_argument("--list", action="store_true", help="list the mutants and stop")
  parser.add_argument("--only", type=int, nargs="+", metavar="N", help="numbers of the mutants to make; all by default")
  arguments = parser.parse_args()
  numbers = arguments.only or range(len(MUTANTS))
  if arguments.list:
    for number in numbers:
      mutant = MUTANTS[number]
      print(f"{number:3} {mutant.path}: {mutant.old}  ->  {mutant.new or 'nothing'}  [{' '.join(mutant.tests)}]")
    return
  problems = [f"mutant {number}: {find_problem(MUTANTS[number], CHECKOUT)}" for number in numbers]
  problems = [problem for problem in problems if not problem.endswith(": ")]
  if problems:
    sys.exit("\n".join(problems))
  survivors = []
  with tempfile.TemporaryDirectory() as folder:
    copy = Path(folder)
    for name in COPIED:
      source = CHECKOUT / name
      ignore = shutil.ignore_patterns("__pycache__")
      shutil.copytree(source, copy / name, ignore=ignore) if source.is_dir() else shutil.copy(source, copy / name)
    # A test that fails anyway would seem to notice everything.
    unbroken = run_tests(copy, tuple(sorted({name for number in numbers for name in MUTANTS[number].tests})))
    if unbroken.returncode:
      sys.exit(f"{unbroken.stdout}{unbroken.stderr}\nThe tests fail without any mutant; mend that first.")
    for number in numbers:
      mutant = MUTANTS[number]
      caught = is_caught(mutant, copy)
      print(f"{number:3} {'caught  ' if caught else 'SURVIVED'} {mutant.path}: {mutant.old}", flush=True)
      if not caught:
        survivors.append(number)
  print(f"{len(numbers) - len(survivors)} of {len(numbers)} caught; survived: {survivors or 'none'}")
  sys.exit(bool(survivors))


if __name__ == "__main__":
  main()
