"""Image-based renderer on pairs of frames (section 5).

  python -m gid_jax.train --config=configs/renderer.py:default --workdir=runs/renderer \
    --config.data.directory=data/windows --config.loss.vgg=vgg16_imagenet_conv_fp16.npz

Needs: windows; for the perceptual loss the convolution layers of VGG16. Without `--config.loss.vgg` the loss compares
pixels and image gradients. The paper's sizes see the photo with ResNet-34, which `--config.init.resnet34=FILE` starts
with torchvision's weights (safetensors); without, it is trained along from nothing.
"""

import ml_collections

from configs import common


def get_config(size: str = "default"):
  """The configuration of one size."""
  size = common.check_size(size)
  config = common.training(
    "renderer",
    size,
    num_steps=common.choose(size, 3_000, 300_000, large=300_000),
    batch_size=common.choose(size, 4, 32, large=32),
    learning_rate=common.choose(size, 4e-4, 1e-4, large=1e-4),
  )
  config.model = ml_collections.ConfigDict(
    dict(image_size=common.IMAGE_SIZES[size], renderer=RENDERERS[size] | dict(splat="motion"))
  )
  config.init = dict(renderer="", resnet34="")
  config.loss = dict(weights=dict(l1=1.0, structure=0.5), vgg="", gradient_scales=2 if size == "tiny" else 3)
  if size == "default":
    config.data.crop = (128, 128)
  if common.fits_photo(size):
    # Only simulated frames come with exact motion and true disocclusion.
    config.data.sources = dict(real=0.3, loop=0.2, synthetic=0.5, live=0.0)
  return config


RENDERERS = {
  "tiny": dict(channels=(8, 8, 16), pyramid="residual"),
  "default": dict(channels=(16, 48, 96, 192), pyramid="residual"),
  "large": dict(channels=(64, 128, 256, 512), pyramid="residual"),
  "paper": dict(channels=(32, 64, 64, 128, 256, 512), pyramid="resnet34"),
  "inpainting_512": dict(channels=(32, 64, 64, 128, 256, 512), pyramid="resnet34"),
}
