"""DINOv2's ViT-S/14 against PyTorch's outputs, stored by `vit_reference.py`, and its parts against NumPy's."""

import functools
import json
import math

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import training_runs
import vit_reference as reference
from flax import traverse_util

from configs import ldm
from gid_jax.configuration import TrainSettings
from gid_jax.errors import UserError
from gid_jax.models import encoders, vit
from gid_jax.parsing import Part, freeze, parse, to_plain
from gid_jax.training.objectives import make_objective

pytestmark = pytest.mark.usefixtures("quick_compilation")

STORED = reference.load()


@pytest.fixture(scope="module")
def tensors():
  return reference.make_tensors()


@pytest.fixture(scope="module")
def params(tensors):
  return vit.convert_dinov2_vits14(tensors, source="file")


@functools.partial(jax.jit, static_argnames=("fields", "method"))
def run(params, image, fields, method):
  return vit.DINOv2ViTS14(**dict(fields)).apply({"params": params}, image, method=method)


def see(params, image, *, method=None, layers=reference.LAYERS, long_side=0, **fields):
  fields = dict(layers=layers, long_side=long_side, **fields)
  return [np.asarray(x) for x in run(params, image, tuple(fields.items()), method)]


def make_photos():
  return np.stack([helpers.smooth_image(30, 48), helpers.smooth_image(30, 48)[::-1]]).astype(np.float32)


@pytest.mark.parametrize("case", reference.CASES)
def test_tokens_match_pytorch(params, case):
  found = see(params, reference.make_photo(case), method="tokens")
  for tokens, expected in zip(found, STORED[case], strict=True):
    np.testing.assert_allclose(reference.thin(tokens), expected, atol=reference.TOLERANCE * np.abs(expected).max())
    # Tokens differ among each other, so that parity means something.
    assert expected.std(axis=1).mean() > 0.2 * expected.std()


@pytest.mark.parametrize("case", reference.CASES)
def test_stored_outputs_are_those_of_pytorch(case):
  pytest.importorskip("torch")
  scale = np.abs(STORED[case]).max()
  np.testing.assert_allclose(reference.run(case), STORED[case], atol=0.1 * reference.TOLERANCE * scale)


def normalize(params, x):
  centred = x - x.mean(-1, keepdims=True)
  return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * params["scale"] + params["bias"]


@pytest.mark.parametrize("num_tokens", [7, 300])  # attended at once, and in chunks
def test_a_layer_is_what_its_paper_says(num_tokens):
  module = vit.TransformerLayer()
  # Faint tokens tell an epsilon of 1e-6 from others.
  tokens = np.random.default_rng(1).normal(size=(1, num_tokens, 384), scale=2e-3).astype(np.float32)
  params = helpers.random_params(module.init, tokens)
  found = np.asarray(jax.jit(module.apply)({"params": params}, tokens))[0]

  x = tokens[0].astype(np.float64)
  normed, attended = normalize(params["norm1"], x), []
  query, key, value = (helpers.dense(params[name], normed) for name in ("query", "key", "value"))
  for head in range(6):
    mine = slice(64 * head, 64 * (head + 1))
    logits = np.exp(query[:, mine] @ key[:, mine].T / 8)
    attended.append(logits / logits.sum(1, keepdims=True) @ value[:, mine])
  x = x + params["scale1"] * helpers.dense(params["out"], np.concatenate(attended, 1))
  hidden = helpers.dense(params["expand"], normalize(params["norm2"], x))
  hidden = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
  x = x + params["scale2"] * helpers.dense(params["project"], hidden)
  np.testing.assert_allclose(found, x, atol=2e-5 * np.abs(x).max())


def cubic(x, a=-0.75):
  x = abs(x)
  if x <= 1:
    return (a + 2) * x**3 - (a + 3) * x**2 + 1
  return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


@pytest.mark.parametrize("size", [(2, 9), (11, 4), (6, 5), (1, 1)])
def test_positions_are_resized_by_keys_cubic(size):
  grid = np.random.default_rng(2).normal(size=(6, 5, 3)).astype(np.float32)
  found, expected = vit.resize_positions(jnp.asarray(grid), *size), np.zeros((*size, 3))
  for row, column in np.ndindex(size):
    y, x = (row + 0.5) * 6 / size[0] - 0.5, (column + 0.5) * 5 / size[1] - 0.5
    for i in range(math.floor(y) - 1, math.floor(y) + 3):
      for j in range(math.floor(x) - 1, math.floor(x) + 3):
        border = grid[min(max(i, 0), 5), min(max(j, 0), 4)]
        expected[row, column] += cubic(y - i) * cubic(x - j) * border
  np.testing.assert_allclose(found, expected, atol=1e-5)
  if size == (6, 5):
    np.testing.assert_array_equal(found, grid)


def test_every_place_of_a_map_is_a_patch_of_the_photo(params):
  # Without attention a place sees its own patch alone.
  flat = traverse_util.flatten_dict(params)
  blind = traverse_util.unflatten_dict({path: 0 * x if path[-1] == "scale1" else x for path, x in flat.items()})
  image = reference.make_photo("wide")
  changed = image.copy()
  changed[:, 14:28, 42:56] = 0.5
  for before, after in zip(see(blind, image), see(blind, changed), strict=True):
    assert before.shape == (2, 3, 5, 384)
    moved = np.abs(after - before).max(-1) > 1e-3
    assert moved[:, 1, 3].all() and moved.sum() == 2


def test_maps_are_the_tokens_without_their_class(params):
  image = reference.make_photo("wide")
  maps = see(params, image)
  for found, tokens in zip(maps, see(params, image, method="tokens"), strict=True):
    np.testing.assert_allclose(found.reshape(2, 15, 384), tokens[:, 1:], atol=1e-5)
  # The class token reaches the patches by attention; fewer layers are the same ones.
  other = params | {"class_token": -params["class_token"]}
  assert np.abs(see(other, image)[0] - maps[0]).max() > 0.01
  np.testing.assert_allclose(see(params, image, layers=(5,))[0], maps[0], atol=1e-4)


@pytest.mark.parametrize(
  "size, long_side, expected",
  [
    ((322, 518), 518, (322, 518)),
    ((160, 256), 518, (322, 518)),
    ((256, 160), 518, (518, 322)),
    ((3000, 4000), 518, (392, 518)),
    ((100, 100), 224, (224, 224)),
    ((100, 100), 225, (224, 224)),
    ((2, 1000), 140, (14, 140)),
    ((50, 50), 3, (14, 14)),
  ],
)
def test_sizes_that_photos_are_read_at(size, long_side, expected):
  assert vit.reading_size(*size, long_side=long_side) == expected


def test_photos_are_brought_to_the_size_they_are_read_at(params):
  image = make_photos()
  found, read = see(params, image, long_side=70), vit.resize_photo(jnp.asarray(image), 42, 70)
  for before, after in zip(found, see(params, read), strict=True):
    assert before.shape == (2, 3, 5, 384)
    np.testing.assert_allclose(before, after, atol=1e-4 * np.abs(after).max())
  # Pixel i of the large photo, of the same waves, is at (i + 0.5) * 30 / 42 - 0.5 of the small one.
  y, x = (np.arange(42) + 0.5) * 30 / 42 - 0.5, (np.arange(70) + 0.5) * 48 / 70 - 0.5
  waves = np.stack(np.broadcast_arrays(0.5 + 0.3 * np.sin(x / 5), 0.4 + 0.3 * np.cos(y / 6)[:, None]), -1)
  np.testing.assert_allclose(read[0, 3:-3, 3:-3, :2], waves[3:-3, 3:-3], atol=2e-3)


def test_photos_that_shrink_are_averaged_and_stay_in_range():
  stripes = jnp.tile(jnp.asarray([0.0, 1.0]), 42)[None, None, :, None] * jnp.ones((1, 84, 1, 3))
  np.testing.assert_allclose(vit.resize_photo(stripes, 28, 28), 0.5, atol=0.1)
  steps = jnp.repeat(stripes[:, :8, :8], 5, axis=2)
  larger = np.asarray(vit.resize_photo(steps, 28, 98))
  assert larger.min() == 0 and larger.max() == 1
  assert vit.resize_photo(steps, 8, 40) is steps


@pytest.mark.parametrize("height, width", [(28, 40), (29, 42), (0, 14)])
def test_other_sizes_are_refused_where_nothing_is_resized(height, width):
  module = vit.DINOv2ViTS14(long_side=0)
  with pytest.raises(UserError, match=f"multiples of 14, not {width}x{height}; resize them, or set long_side"):
    jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, height, width, 3)))


@pytest.mark.parametrize("layers", [(), (0,), (13,), (6, 3), (3, 3), (-1,)])
def test_layers_that_do_not_exist_are_refused(layers):
  module = vit.DINOv2ViTS14(layers=layers, long_side=28)
  with pytest.raises(UserError, match=r"layers=.*give some of 1 \.\.\. 12, rising"):
    jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 28, 28, 3)))


def test_widths_and_deviations_follow_the_layers():
  module = vit.DINOv2ViTS14(layers=(2, 5, 12))
  assert module.widths == (384,) * 3
  every = vit.DINOv2ViTS14(layers=tuple(range(1, 13))).deviations
  assert module.deviations == (every[1], every[4], every[11]) and len(set(module.deviations)) == 3


def test_bfloat16_is_near_float32(params):
  image = reference.make_photo("wide")
  for before, after in zip(see(params, image), see(params, image, dtype="bfloat16"), strict=True):
    assert after.dtype == np.float32
    assert 1e-4 < np.linalg.norm(after - before) / np.linalg.norm(before) < 2e-2


def test_converted_tree_is_the_module_tree(tensors, params):
  shapes = jax.eval_shape(vit.DINOv2ViTS14().init, jax.random.key(0), jnp.zeros((1, 28, 28, 3)))["params"]
  assert jax.tree.map(np.shape, params) == jax.tree.map(lambda leaf: leaf.shape, shapes)
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
  # Nothing is used twice, and nothing but the mask is left.
  used = sorted(np.abs(leaf).sum(dtype=np.float64) for leaf in jax.tree.leaves(params))
  given = sorted(np.abs(x).sum(dtype=np.float64) for name, x in tensors.items() if "mask" not in name)
  np.testing.assert_allclose(used, given, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_file_gives_its_numbers(tensors, tmp_path, dtype):
  path = str(tmp_path / "weights.safetensors")
  stored = {name: np.ascontiguousarray(x, dtype) for name, x in tensors.items()}
  safetensors.numpy.save_file(stored, path)
  params = encoders.TRUNKS["dinov2_vits14"].read(path)
  kernel = stored["encoder.layer.3.mlp.fc1.weight"].T
  np.testing.assert_array_equal(params["layer_4"]["expand"]["kernel"], kernel)
  expected = vit.convert_dinov2_vits14(stored, source="file")
  jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_other_files_are_refused(tensors, tmp_path):
  with pytest.raises(UserError, match=r"Cannot read .*absent\.safetensors.* Give the safetensors of DINOv2's ViT-S/14"):
    vit.dinov2_vits14_params(tmp_path / "absent.safetensors")
  (tmp_path / "junk.safetensors").write_bytes(b"not weights")
  with pytest.raises(UserError, match=r"Cannot read .*junk"):
    vit.dinov2_vits14_params(tmp_path / "junk.safetensors")
  for name in ("embeddings.cls_token", "layernorm.bias", "encoder.layer.11.layer_scale2.lambda1"):
    rest = {other: x for other, x in tensors.items() if other != name}
    with pytest.raises(UserError, match=rf"file is not DINOv2's ViT-S/14: {name} should have shape .*found nothing"):
      vit.convert_dinov2_vits14(rest, source="file")
  smaller = tensors | {"embeddings.position_embeddings": tensors["embeddings.position_embeddings"][:, 1:]}
  with pytest.raises(UserError, match=r"should have shape \(1, 1370, 384\), found \(1, 1369, 384\)"):
    vit.convert_dinov2_vits14(smaller, source="file")


def make_encoder(**fields):
  part = {"channels": 4, "hidden": 8, "trunks": ("efficientnet_lite0", "dinov2_vits14")} | fields
  return encoders.make_encoder(Part("condition", freeze(part)))


FIELDS = {"dinov2_vits14": {"layers": list(reference.LAYERS), "long_side": 70}}
SIZE = {"height": 8, "width": 12}


def test_it_sees_beside_efficientnet(params):
  module, image = make_encoder(trunk_fields=FIELDS), make_photos()
  own = helpers.random_params(module.init, image, **SIZE) | {"frozen_trunk_dinov2_vits14": params}
  seen = jax.jit(lambda params: module.apply({"params": params}, image, **SIZE, method="see"))(own)
  assert seen.shape == (2, 8, 12, 16 + 24 + 40 + 112 + 320 + 2 * 384)
  maps = see(params, vit.resize_photo(jnp.asarray(image), 42, 70))
  for index, deviation in enumerate((0.056, 2.1)):
    expected = jax.image.resize(maps[index], (2, 8, 12, 384), "linear") / deviation
    begin = 512 + 384 * index
    np.testing.assert_allclose(seen[..., begin : begin + 384], expected, atol=1e-4 * np.abs(expected).max())


def test_it_stays_as_it_is_while_the_encoder_trains(params):
  module, image = make_encoder(trunks=("dinov2_vits14",), trunk_fields=FIELDS), make_photos()
  own = helpers.random_params(module.init, image, **SIZE) | {"frozen_trunk_dinov2_vits14": params}
  slopes = jax.jit(jax.grad(lambda params: module.apply({"params": params}, image, **SIZE)[0].sum()))(own)
  assert not any(np.any(x) for x in jax.tree.leaves(slopes["frozen_trunk_dinov2_vits14"]))
  assert np.any(slopes["project_0"]["kernel"]) and np.any(slopes["project_1"]["kernel"]) and "project_2" not in slopes


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"trunk_fields": {"dinov2_vits14": {"layer": 3}}}, "'dinov2_vits14' has no setting 'layer'; did you mean layers"),
    ({"trunk_fields": {"dinov2_vitb14": {}}}, "trunks have no such name; did you mean dinov2_vits14"),
    ({"trunk_fields": {"dinov2_vits14": {}}, "trunks": ()}, r"fields\.dinov2_vits14: the trunks have no such name"),
  ],
)
def test_fields_of_networks_that_are_wrong_are_refused(fields, message):
  module = make_encoder(**fields)
  with pytest.raises(UserError, match=message):
    jax.eval_shape(lambda key: module.init(key, jnp.zeros((1, 28, 28, 3)), height=4, width=4), jax.random.key(0))


def test_settings_name_it_and_travel_with_the_weights(params):
  config = training_runs.make_config(ldm, "", num_steps=2, batch_size=2)
  with config.unlocked():
    config.model.encoder.trunks = ("efficientnet_lite0", "dinov2_vits14")
    config.model.encoder.trunk_fields = {"dinov2_vits14": {"layers": (6, 12), "long_side": 28}}
  settings = parse(TrainSettings, config)
  assert parse(TrainSettings, json.loads(json.dumps(to_plain(settings)))) == settings
  bands = np.tile(np.arange(training_runs.NUM_BANDS, dtype=np.int32), (2, 1))
  slices = np.zeros((*bands.shape, 16, 24, 4), np.float32)
  batch = {"image": np.zeros((2, 32, 48, 3), np.float32), "slice": slices, "band": bands}
  described = make_objective(settings).describe(batch)["encoder"]
  assert jax.tree.map(np.shape, described["frozen_trunk_dinov2_vits14"]) == jax.tree.map(np.shape, params)
  assert described["project_6"]["kernel"].shape == (1, 1, 384, 16) and "project_7" not in described
