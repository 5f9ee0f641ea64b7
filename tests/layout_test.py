"""The arrows between modules, read off their imports."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
MODULES = sorted(
  path.relative_to(ROOT).with_suffix('')
  for package in ('configs', 'data_pipeline', 'stormer_jax')
  for path in (ROOT / package).glob('*.py')
  if path.name != '__init__.py'
)
# Leaves of stormer_jax: siblings they may import, for types or data alone.
LEAVES = {
  'model': set(),
  'flops': {'model'},
  'losses': {'model'},
  'optimizer': set(),
  'sharding': set(),
  'metrics': set(),
  'metric_writer': set(),
  'progress': {'metric_writer'},
  'watchdog': set(),
  'workdir': set(),
  'checkpoint': set(),
  'report': {'metrics'},
  'pretrained': {'tensor_file', 'torch_file', 'weight_names'},
  'weight_names': set(),
  'distributed': {'peers', 'roll_call'},
  'peers': set(),
  'roll_call': set(),
  'tensor_file': set(),
  'torch_file': set(),
}
JOINING = {'main', 'train', 'validation', 'evaluate', 'predict', 'demo'}


def imports(module: pathlib.Path) -> set[str]:
  """Names of our modules that `module` imports, as 'package.module'."""
  tree = ast.parse((ROOT / module).with_suffix('.py').read_text())
  names = set()
  for node in ast.walk(tree):
    if isinstance(node, ast.ImportFrom) and node.level == 0:
      names |= {f'{node.module}.{alias.name}' for alias in node.names}
    elif isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
  ours = ('configs', 'data_pipeline', 'stormer_jax')
  return {name for name in names if name.split('.')[0] in ours}


@pytest.mark.parametrize('module', MODULES, ids=str)
def test_packages_import_only_along_the_arrows(module):
  package, name = module.parts
  packages = {target.split('.')[0] for target in imports(module)}
  allowed = {
    'configs': {'configs'},
    'data_pipeline': {'data_pipeline'},
    'stormer_jax': {'stormer_jax'}
    | ({'data_pipeline'} if name in JOINING else set()),
  }[package]
  assert packages <= allowed


@pytest.mark.parametrize('name', LEAVES)
def test_leaves_of_the_detector_import_no_sibling(name):
  siblings = {
    target.split('.')[1]
    for target in imports(pathlib.Path('stormer_jax') / name)
  }
  assert siblings <= LEAVES[name]


def test_imports_form_no_cycle():
  graph = {'.'.join(m.parts): imports(m) for m in MODULES}
  done: set[str] = set()

  def visit(name, path):
    assert name not in path, f'cycle: {" -> ".join([*path, name])}'
    if name not in done:
      for target in graph.get(name, ()):
        visit(target, (*path, name))
      done.add(name)

  for name in graph:
    visit(name, ())


def test_the_readme_maps_every_module():
  readme = (ROOT / 'README.md').read_text()
  missing = [str(m) for m in MODULES if m.name + '.py' not in readme]
  assert not missing
