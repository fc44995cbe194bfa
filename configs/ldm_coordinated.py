"""Stage 2 of the motion model: attention across frequencies (section 4.2); stage 1 is frozen but in `default`.

  python -m gid_jax.train --config=configs/ldm_coordinated.py:default --workdir=runs/ldm_coordinated \
    --config.data.directory=data/windows --config.init.ldm=runs/ldm

Needs: windows and the work folder of a trained `ldm`. Its checkpoint holds the complete motion model.
"""

from configs import common


def get_config(size: str = "default"):
  """The configuration of one size."""
  size = common.check_size(size)
  config = common.training(
    "ldm_coordinated",
    size,
    num_steps=common.choose(size, 1_500, 200_000, large=100_000),
    batch_size=common.choose(size, 2, 96, large=16),
    learning_rate=common.choose(size, 4e-4, 5e-5, large=2e-4),
  )
  config.model = common.motion_model(size, coordination="attention")
  config.schedule = common.schedule(size)
  config.sampling = common.sampling(size)
  config.condition_drop = 0.1
  config.loss = dict(weights=dict(denoising=1.0))
  # The paper trains the frequency attention alone. After the few steps of `default` the rest has much to learn too.
  config.freeze_bands = size != "default"
  common.link_data(config)
  config.init = dict(ldm="runs/ldm")
  return config
