"""Network that invents what is behind moving things, on photos with holes (section 5; Zhao et al. 2021).

  python -m gid_jax.train --config=configs/plate.py:default --workdir=runs/plate \
    --config.data.directory=data/windows --config.data.live.backgrounds=photos --config.data.live.sprites=cutouts \
    --config.loss.vgg=vgg16_imagenet_conv_fp16.npz

Needs: windows, whose photos have holes cut along what moves, and a folder of photos, perhaps one of cut-outs
too, whose outlines are cut into them ("live"); for the perceptual loss the convolution layers of VGG16. Without
`--config.loss.vgg` the loss compares pixels and image gradients. There is no adversarial term.
"""

import ml_collections

from configs import common


def get_config(size: str = "default"):
  """The configuration of one size."""
  size = common.check_size(size)
  config = common.training(
    "plate",
    size,
    num_steps=common.choose(size, 3_000, 300_000, large=300_000),
    batch_size=common.choose(size, 8, 32, large=32),
    learning_rate=common.choose(size, 1e-3, 1e-4, large=1e-4),
  )
  config.model = ml_collections.ConfigDict(dict(image_size=common.IMAGE_SIZES[size], plate=PLATES[size]))
  config.init = dict(plate="")
  config.loss = dict(weights=dict(hole=1.0, structure=0.05), vgg="", gradient_scales=2 if size == "tiny" else 3)
  if size != "tiny":
    config.data.crop = (96, 96) if size == "default" else (128, 128)
    config.data.sources = dict(real=0.1, loop=0.1, synthetic=0.0, live=0.8)
  if size == "default":
    config.ema_decay = 0.995  # for a training of an hour
  return config


PLATES = {
  "tiny": dict(channels=(8, 8, 16)),
  "default": dict(channels=(24, 48, 96, 128)),
  "large": dict(channels=(64, 128, 192, 256)),
  "paper": dict(channels=(64, 128, 256, 512)),
  "inpainting_512": dict(channels=(64, 128, 256, 512)),
}
