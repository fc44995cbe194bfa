"""Stage 1 of the motion model: single frequency slices (section 4.2).

  python -m gid_jax.train --config=configs/ldm.py:default --workdir=runs/ldm \
    --config.data.directory=data/windows --config.init.vae=runs/vae

Needs: windows and the work folder of a trained `vae`. `default` sees photos through EfficientNet-Lite0, whose ImageNet
weights it takes from the embedded weights, or from a PyTorch file given as `--config.init.encoder=FILE.safetensors`;
`paper` trains a ResNet instead.
"""

from configs import common


def get_config(size: str = "default"):
  """The configuration of one size."""
  size = common.check_size(size)
  config = common.training(
    "ldm",
    size,
    num_steps={"paper": 750_000}.get(size, 2_000),
    batch_size={"paper": 96}.get(size, 8),
    learning_rate={"paper": 5e-5}.get(size, 4e-4),
  )
  config.model = common.motion_model(size, frequency_attention=False)
  config.schedule = common.schedule(size)
  config.sampling = common.sampling(size)
  config.condition_drop = 0.1
  config.data.bands_per_example = 1 if size == "paper" else 2
  config.init = dict(vae="runs/vae", encoder="", ldm="")
  return config
