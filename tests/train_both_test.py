"""JAX and PyTorch are trained on the same pairs, and compared to the end."""

import dataclasses
import json
import subprocess

import numpy as np
import pytest

from configs import jax_vs_pytorch
from data_pipeline import records as records_lib

pytest.importorskip(
  'torch', reason='torch is not installed: pip install -e ".[torch]"'
)
dumped_pairs = pytest.importorskip('benchmarks.dumped_pairs')
train_both = pytest.importorskip('benchmarks.train_both')
twin_results = pytest.importorskip('benchmarks.twin_results')
twin_run = pytest.importorskip('benchmarks.twin_run')

pytestmark = pytest.mark.extra

PLAN = train_both.Plan(
  programs=twin_run.PROGRAMS,
  seeds=(3, 4),
  num_steps=6,
  num_pairs=8,
  unseen='val0',
)


def small_config():
  config = jax_vs_pytorch.get_config()
  config.data.batch_size = 2
  config.model.update(width=16, depth=1, num_heads=2, image_size=16)
  config.train.num_epochs = 3
  config.optimizer.warmup_epochs = 1
  return config


@pytest.fixture(scope='module')
def folder(data_root, tmp_path_factory, quickly):
  """Pairs of made-up people, and both programs trained on them."""
  out = tmp_path_factory.mktemp('both')
  (out / 'records').symlink_to(data_root)
  config = small_config()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(dumped_pairs, 'prepare', lambda *_: None)
    patch.setattr(
      records_lib,
      'open_records',
      lambda root, _, rule, split, real=records_lib.open_records: real(
        root, 'demo', rule, split
      ),
    )

    def in_this_process(command, **_):
      flags = dict(flag.lstrip('-').split('=') for flag in command[3:])
      twin_run.run(out, flags['program'], int(flags['seed']))

    patch.setattr(subprocess, 'run', in_this_process)
    patch.setattr(train_both.machine, 'describe', lambda _: 'a machine')
    patch.setattr(dumped_pairs.machine, 'commit', lambda: 'abc1234')
    train_both.train(config, PLAN, out, out)
  return out


def losses_of(folder, program):
  return dumped_pairs.read(folder / f'{program}_seed3.npz')['total']


def test_both_frameworks_see_the_same_loss_in_the_first_steps(folder):
  ours, theirs = losses_of(folder, 'jax'), losses_of(folder, 'torch')
  assert len(ours) == PLAN.num_steps
  # The first before anything was learned, the next after SAM and Adam.
  np.testing.assert_allclose(ours[:1], theirs[:1], rtol=1e-5)
  np.testing.assert_allclose(ours[:4], theirs[:4], rtol=1e-4)
  assert len(set(ours)) == len(ours)


def test_both_frameworks_score_the_unseen_alike(folder):
  ours, theirs = (
    dumped_pairs.read(folder / f'{program}_seed3.npz')['scores']
    for program in ('jax', 'torch')
  )
  clips = len(dumped_pairs.read(folder / 'unseen.npz')['label'])
  assert ours.shape == theirs.shape == (len(PLAN.scored_after), clips)
  np.testing.assert_allclose(ours, theirs, atol=5e-3)


def test_the_results_are_complete(folder):
  results = json.loads((folder / 'results.json').read_text())
  assert results['machine'] == 'a machine'
  for program in twin_run.PROGRAMS:
    found = results[program]
    # Of each seed, and the mean; nudged is the first alone.
    assert len(found['auc']) == (1 if program == 'nudged' else 3)
    for estimate in (*found['auc'], *found['more_than_jax']):
      assert -1 <= estimate['low'] <= estimate['high'] <= 1
    assert found['cpu_ms'][0] > 0
    assert found['apart'][0]['10']['largest'] < 1e-2
  assert results['jax']['more_than_jax'][0]['value'] == 0
  assert results['nudged']['apart'][0]['10']['largest'] > 0


def test_the_difference_is_that_of_the_aucs(folder):
  results = twin_results.summarize(folder, PLAN.programs, PLAN.seeds)
  ours, theirs = results['jax']['auc'][0], results['torch']['auc'][0]
  difference = results['torch']['more_than_jax'][0]['value']
  assert difference == pytest.approx(theirs['value'] - ours['value'])


@pytest.mark.parametrize('num_steps, said', [(2000, True), (1000, False)])
def test_only_the_published_run_says_what_was_doubled(num_steps, said):
  plan = {'unseen': 'man_carphone', 'num_steps': num_steps, 'num_pairs': 3200}
  text = twin_results._how_it_was_chosen(plan)
  assert 'president_obama' in text
  assert ('were doubled' in text) == said


def test_the_page_gets_its_last_section_again(folder, tmp_path, monkeypatch):
  page = tmp_path / 'page.md'
  page.write_text(f'# Before\n{twin_results.HEADING}\n\nold\n')
  finished = train_both.train(small_config(), PLAN, folder, folder)
  monkeypatch.setattr(train_both, 'train', lambda *_: finished)
  assert train_both.main([f'--page={page}']) == 0
  text = page.read_text()
  assert text.startswith('# Before\n\n##') and 'old' not in text
  assert text.count(twin_results.HEADING) == 1
  assert '| seed 3 |' in text and '| mean |' in text
  assert 'by the code of commit abc1234' in ' '.join(text.split())
  plots = sorted(path.name for path in tmp_path.glob('*.svg'))
  assert plots == ['jax_vs_pytorch_auc.svg', 'jax_vs_pytorch_loss.svg']
  for name in plots:
    assert f'({name})' in text
    drawn = (tmp_path / name).read_text()
    assert '>JAX<' in drawn and '>PyTorch<' in drawn


def test_a_finished_run_is_not_run_again(folder, monkeypatch):
  def refuse(*_, **__):
    raise AssertionError('a program was started')

  monkeypatch.setattr(subprocess, 'run', refuse)
  results = train_both.train(small_config(), PLAN, folder, folder)
  assert results['machine'] == 'a machine'


def test_a_mistaken_flag_is_an_error_in_one_line(capsys):
  assert train_both.main(['--programs=jax,tensorflow']) == 2
  assert 'tensorflow' in capsys.readouterr().err
  assert train_both.main(['--steps=0']) == 2
  assert '--steps' in capsys.readouterr().err


def test_another_plan_in_the_same_folder_is_refused(folder):
  other = dataclasses.replace(PLAN, num_steps=7)
  with pytest.raises(ValueError, match=r'num_steps.*choose another --out'):
    train_both.train(small_config(), other, folder, folder)


def test_another_configuration_in_the_same_folder_is_refused(folder):
  config = small_config()
  config.model.width = 32
  with pytest.raises(ValueError, match=r'model\.width'):
    train_both.train(config, PLAN, folder, folder)


def test_a_pair_lies_in_two_rows_of_one_label_each(folder):
  pairs = dumped_pairs.read(folder / 'pairs.npz')
  assert (pairs['label'].reshape(-1, 2).sum(1) == 1).all()
  batch = dumped_pairs.take(pairs, np.array([3, 0]))
  np.testing.assert_array_equal(batch['clip'][0], pairs['clip'][6])
  np.testing.assert_array_equal(batch['clip'][3], pairs['clip'][1])
  assert batch['clip'].dtype == np.float32


def test_each_clip_of_the_unseen_person_is_blended_several_times(folder):
  unseen = dumped_pairs.read(folder / 'unseen.npz')
  _, counts = np.unique(unseen['window'], return_counts=True)
  assert (counts == 2 * train_both._NUM_DRAWS).all()
  fakes = unseen['clip'][(unseen['window'] == 0) & (unseen['label'] == 1)]
  assert len(np.unique(fakes.reshape(len(fakes), -1), axis=0)) == len(fakes)


def test_all_pairs_are_seen_before_one_is_seen_again():
  order = dumped_pairs.batch_order(8, 6, 2, seed=0)
  assert order.shape == (6, 2)
  assert sorted(order[:4].reshape(-1)) == [*range(8)]
  assert not np.array_equal(order, dumped_pairs.batch_order(8, 6, 2, seed=1))


def test_a_nudge_moves_every_trained_number_to_its_neighbour():
  start = {
    'w': np.linspace(-1, 1, 9, dtype=np.float32),
    'running_mean': np.ones(3, np.float32),
    'num_batches_tracked': np.int64(0),
  }
  moved = twin_run.nudged(start, 0)
  assert (moved['w'] != start['w']).all()
  np.testing.assert_allclose(moved['w'], start['w'], rtol=1e-6, atol=1e-40)
  np.testing.assert_array_equal(moved['running_mean'], start['running_mean'])


def test_a_person_whom_the_demo_does_not_know_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r"nobody is called 'me'.*man_carphone"):
    dumped_pairs.prepare(tmp_path, tmp_path, 'me')
