"""A workdir belongs to one run."""

import json
import pathlib

import pytest

from stormer_jax.runs import workdir as workdir_lib


def test_a_workdir_belongs_to_one_configuration(tiny_config, tmp_path):
  workdir_lib.claim(tiny_config, tmp_path)
  workdir_lib.claim(tiny_config, tmp_path)  # the same again: resume
  tiny_config.model.width = 32
  tiny_config.loss.temperature = 1.0
  with pytest.raises(ValueError) as error:
    workdir_lib.claim(tiny_config, tmp_path)
  assert 'loss.temperature: 2.0 there, 1.0 here' in str(error.value)
  assert 'model.width: 24 there, 32 here' in str(error.value)


def test_a_field_that_a_run_did_not_know_is_of_another_version(
  tiny_config, tmp_path
):
  workdir_lib.claim(tiny_config, tmp_path)
  newer = tiny_config.copy_and_resolve_references().unlock()
  newer.model.new_field = 1
  with pytest.raises(
    ValueError, match=r'new_field: absent there, 1 here.*version of this prog'
  ):
    workdir_lib.claim(newer, tmp_path)


def test_how_a_run_is_carried_out_may_change(tiny_config, tmp_path):
  workdir_lib.claim(tiny_config, tmp_path)
  tiny_config.train.mesh_fsdp = 2
  tiny_config.data.num_threads = 1
  tiny_config.model.remat = 'full'
  tiny_config.eval.margin = 0
  workdir_lib.claim(tiny_config, tmp_path)


def test_the_resolved_configuration_lies_in_the_workdir(tiny_config, tmp_path):
  tiny_config.optimizer.rho = 0.07
  workdir_lib.claim(tiny_config, tmp_path)
  saved = json.loads((tmp_path / 'config.json').read_text())
  assert saved['optimizer']['rho'] == 0.07


@pytest.mark.skipif(
  not pathlib.Path('/proc/self').exists(), reason='no folder of no disk here'
)
def test_a_workdir_that_cannot_be_written_is_refused_with_the_fix(tiny_config):
  # Permissions would not stop a test that runs as root; the kernel does here.
  with pytest.raises(OSError, match=r'/proc/run: cannot be written .*choose'):
    workdir_lib.claim(tiny_config, pathlib.Path('/proc/run'))


def test_a_run_is_finished_when_it_says_so(tiny_config, tmp_path):
  workdir_lib.claim(tiny_config, tmp_path)
  assert not workdir_lib.is_finished(tmp_path)
  workdir_lib.finish(tmp_path, 12)
  assert workdir_lib.is_finished(tmp_path)


def test_a_run_keeps_to_the_faces_that_it_began_with(tiny_config, tmp_path):
  workdir_lib.claim(tiny_config, tmp_path)
  workdir_lib.claim_faces('', tmp_path)  # nobody knows
  assert not (tmp_path / 'faces.json').exists()
  workdir_lib.claim_faces('centerface+facemesh_v2', tmp_path)
  workdir_lib.claim_faces('centerface+facemesh_v2', tmp_path)
  with pytest.raises(ValueError, match=r'found by centerface.*are of dlib-1'):
    workdir_lib.claim_faces('dlib-1', tmp_path)
