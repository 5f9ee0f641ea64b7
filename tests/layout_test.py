"""The arrows between modules and rooms, read off their imports."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGES = ('configs', 'data_pipeline', 'stormer_jax')
MODULES = {
  '.'.join(path.relative_to(ROOT).with_suffix('').parts): path
  for package in PACKAGES
  for path in sorted((ROOT / package).rglob('*.py'))
  if path.name != '__init__.py'
}
# What the rooms of stormer_jax may import of its hall.
HALL_LEAVES = (
  *('detector', 'losses', 'model', 'sharding', 'stem', 'steps', 'vit'),
)
# What a room of data_pipeline may import from outside of itself. `records`
# is what a file becomes; nothing else of the hall.
DATA_ROOMS = {
  'engines': set(),
  'sources': set(),
  'faces': set(),
  'synthesis': {'data_pipeline.landmarks'},
}
# Modules of the hall that others build on: what they import of stormer_jax.
LEAVES = {
  'depthwise': set(),
  'stem': {'depthwise'},
  'model': {'stem'},
  'vit': {'model', 'stem'},
  'kinds': {
    'model',
    'baselines.frame_cnn',
    'baselines.frame_cnn_ensemble',
    'baselines.frame_probe',
    'baselines.frame_vit',
    'baselines.timesformer',
    'baselines.resnet3d',
    'pretraining.masked_autoencoder',
  },
  'flops': {'kinds', 'model', 'vit'},
  'losses': {'model'},
  'optimizer': set(),
  'sharding': set(),
}
# The only modules that may import both packages.
JOINING = {
  'stormer_jax.cli',
  'stormer_jax.demo',
  'stormer_jax.held_out',
  'stormer_jax.main',
  'stormer_jax.modes',
  'stormer_jax.train',
  'stormer_jax.validation',
  'stormer_jax.scoring.annotated_video',
  'stormer_jax.scoring.archive',
  'stormer_jax.scoring.clip_scorer',
  'stormer_jax.scoring.evaluate',
  'stormer_jax.scoring.export',
  'stormer_jax.scoring.predict',
  'stormer_jax.scoring.video_detector',
  'stormer_jax.scoring.video_list',
}


def imports(module: str) -> set[str]:
  """Our modules that a module imports, by their full names."""
  names = set()
  for node in ast.walk(ast.parse(MODULES[module].read_text())):
    if isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{module} imports relatively'
      names |= {f'{node.module}.{alias.name}' for alias in node.names}
      names.add(str(node.module))
    elif isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
  ours = {name for name in names if name.split('.')[0] in PACKAGES}
  return ours & set(MODULES)


def room(module: str) -> str:
  """The room of a module, '' for the hall."""
  parts = module.split('.')
  return parts[1] if len(parts) == 3 else ''


@pytest.mark.parametrize('module', MODULES)
def test_packages_import_only_along_the_arrows(module):
  package = module.split('.')[0]
  allowed = {package} | ({'data_pipeline'} if module in JOINING else set())
  assert {target.split('.')[0] for target in imports(module)} <= allowed


@pytest.mark.parametrize(
  'module', [m for m in MODULES if m.startswith('stormer_jax.') and room(m)]
)
def test_a_room_of_the_detector_imports_leaves_of_the_hall_alone(module):
  for target in imports(module):
    if target.startswith('stormer_jax.'):
      _, *inside = target.split('.')
      assert room(target) == room(module) or inside[0] in HALL_LEAVES, target


@pytest.mark.parametrize(
  'module', [m for m in MODULES if m.startswith('data_pipeline.') and room(m)]
)
def test_a_room_of_the_data_keeps_to_itself(module):
  outside = {t for t in imports(module) if room(t) != room(module)}
  assert outside <= DATA_ROOMS[room(module)]


@pytest.mark.parametrize('name', LEAVES)
def test_leaves_of_the_hall_import_no_sibling(name):
  of_hall = {
    target.split('.', 1)[1] for target in imports(f'stormer_jax.{name}')
  }
  assert of_hall <= LEAVES[name]


def test_rooms_are_one_level_deep():
  assert all(len(module.split('.')) <= 3 for module in MODULES)


def test_imports_form_no_cycle():
  done: set[str] = set()

  def visit(name, path):
    assert name not in path, f'cycle: {" -> ".join([*path, name])}'
    if name not in done:
      for target in imports(name):
        visit(target, (*path, name))
      done.add(name)

  for name in MODULES:
    visit(name, ())


def test_the_readme_maps_every_module():
  readme = (ROOT / 'README.md').read_text()
  missing = [m for m in MODULES if m.rsplit('.', 1)[1] + '.py' not in readme]
  assert not missing


def test_no_two_test_files_have_the_same_name():
  """pytest takes the second for the first where folders are no packages."""
  names = [path.name for path in (ROOT / 'tests').rglob('*_test.py')]
  assert len(set(names)) == len(names)
