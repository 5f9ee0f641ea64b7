"""Saving and restoring a run, by Orbax.

A checkpoint is one atomic folder `<workdir>/checkpoints/<step>` that holds the
training state, the place in the data stream and the run's clock. Any mesh and
any number of processes can restore it. Kept are the newest few, the best by
validation and, if wanted, milestones.
"""

from collections.abc import Iterator, Mapping
import contextlib
import json
import pathlib
import shutil
import signal
from typing import Any, NamedTuple

from absl import logging
import jax
from jax.experimental import multihost_utils
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

Tree = Any

# Checkpoints no longer kept are moved here, which is atomic, and then removed:
# a run killed while it removes one leaves no half of it among the others.
_TRASH = 'deleted'


class Restored(NamedTuple):
  """What `Checkpointer.restore` brings back."""

  step: int
  state: Tree
  data: dict[str, Any]  # the place in the stream, and which stream it is
  clock: dict[str, float]  # see `progress.Progress`


class Checkpointer:
  """Owns the checkpoints of one workdir.

  `save` is to be called before every step; it decides. It writes in the
  background, from a copy, so the state may be donated at once.
  """

  def __init__(
    self,
    directory: pathlib.Path,
    *,
    save_steps=None,
    keep_last: int = 2,
    keep_every: int = 0,
  ):
    """Opens `directory`, creating it if need be.

    Args:
      directory: `<workdir>/checkpoints`.
      save_steps: Predicate on the step; None opens for reading only.
      keep_last: Newest checkpoints kept, beside the best.
      keep_every: Checkpoints at multiples of it are never removed; 0: none.
    """
    read_only = save_steps is None
    policies: list[checkpoint_managers.PreservationPolicy] = [
      checkpoint_managers.LatestN(keep_last),
      checkpoint_managers.BestN(
        get_metric_fn=_rank, n=1, keep_checkpoints_without_metrics=False
      ),
    ]
    if keep_every:
      policies.append(checkpoint_managers.EveryNSteps(keep_every))
    self._directory = pathlib.Path(directory).absolute()
    self._read_only = read_only
    self._check_opening()
    self._manager = ocp.CheckpointManager(
      self._directory,
      options=ocp.CheckpointManagerOptions(
        should_save_fn=lambda step, _: not read_only and save_steps(step),
        best_fn=_rank,
        preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
        todelete_subdir=None if read_only else _TRASH,
        cleanup_tmp_directories=not read_only,  # of saves that were cut off
        # A save that falls due while another is written waits for it: which
        # checkpoints exist must not depend on the speed of the disk.
        enable_should_save_is_saving_in_progress_check=False,
        create=not read_only,
        read_only=read_only,
      ),
      item_handlers={
        'state': ocp.PyTreeCheckpointHandler(),
        'data': ocp.JsonCheckpointHandler(),
        'clock': ocp.JsonCheckpointHandler(),
      },
    )
    self._empty_trash()
    self._terminated = False
    if not read_only and jax.process_count() == 1:
      # Several processes hear of SIGTERM through jax.distributed, which agrees
      # on one step for all; one process needs its own ear.
      self._previous = signal.signal(signal.SIGTERM, self._on_sigterm)

  def _on_sigterm(self, signum, frame):
    del signum, frame
    self._terminated = True

  def all_steps(self) -> list[int]:
    """Finished checkpoints, oldest first."""
    return sorted(self._manager.all_steps())

  def latest_step(self) -> int | None:
    """Newest finished checkpoint, or None."""
    return self._manager.latest_step()

  def best_step(self) -> int | None:
    """Best checkpoint by its validation score, else the newest, else None."""
    scored = [s for s in self.all_steps() if self._selection(s) is not None]
    if not scored:
      return self.latest_step()
    return max(scored, key=lambda s: _rank(self._manager.metrics(s)))

  def should_save(self, step: int) -> bool:
    """Whether `save` would write at this step."""
    return self.reached_preemption(step) or self._manager.should_save(step)

  def save(
    self,
    step: int,
    state: Tree,
    data: Mapping[str, Any],
    clock: Mapping[str, float],
    selection: float | None = None,
  ) -> bool:
    """Saves if due.

    Args:
      step: Updates done.
      state: Pytree of arrays.
      data: JSON that says where in which data the run is.
      clock: Of the run, JSON.
      selection: Validation score, higher is better, if one was just measured.

    Returns:
      Whether it saved.

    Raises:
      OSError: If this checkpoint, or the one before it, cannot be written.
    """
    if self._manager.latest_step() == step:
      return False
    self._check_room(state)
    # Orbax copies to the host by np.asarray, which the training loop's
    # transfer guard refuses on accelerators.
    with jax.transfer_guard('allow'), self._explaining():
      saved = self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.PyTreeSave(state),
          data=ocp.args.JsonSave(dict(data)),
          clock=ocp.args.JsonSave(dict(clock)),
        ),
        metrics=None
        if selection is None
        else {'selection': selection, 'step': step},
        force=self._terminated,
      )
    self._empty_trash()
    return saved

  def restore_latest(
    self, abstract_state: Tree, shardings: Tree
  ) -> Restored | None:
    """Restores the newest checkpoint that can be read; None if there is none.

    One that cannot, as after a power cut, is renamed to damaged-<step> and
    the one before it is taken.

    Args:
      abstract_state: From `jax.eval_shape`. Its dtypes are those restored,
        whatever was saved.
      shardings: From `sharding.state_shardings`; the mesh may differ from the
        one that saved.

    Raises:
      ValueError: If the checkpoint is of another model; names the tensors. If
        every checkpoint is damaged.
    """
    steps = self.all_steps()
    for step in reversed(steps):
      problem, found = '', None
      try:
        found = self._restore(step, abstract_state, shardings)
      except _OtherModelError:
        raise
      # Whatever the layers below raise for a file that is short or missing.
      except Exception as error:
        problem = f'{type(error).__name__}: {error}'.splitlines()[0]
      if _everywhere(not problem):
        return found
      logging.error(
        '%s/%d cannot be read (%s); taking the checkpoint before it',
        self._directory,
        step,
        problem or 'another process failed',
      )
      self._set_aside(step)
    if steps:
      raise ValueError(
        f'{self._directory}: none of the checkpoints {steps} can be read; they'
        ' are now named damaged-STEP. To begin anew, run the same command again'
      )
    return None

  def _restore(self, step, abstract_state, shardings) -> Restored:
    self._check(step, {'': abstract_state})
    target = jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
      abstract_state,
      shardings,
    )
    restored = self._manager.restore(
      step,
      args=ocp.args.Composite(
        state=_restore_args(target),
        data=ocp.args.JsonRestore(),
        clock=ocp.args.JsonRestore(),
      ),
    )
    return Restored(
      step, restored['state'], restored['data'], restored['clock']
    )

  def _set_aside(self, step: int) -> None:
    _rename_damaged(self._directory / str(step))
    _wait_for_all(f'damaged-{step}')
    self._manager.reload()

  def _check_opening(self) -> None:
    """Looks for what Orbax could not open the whole folder with.

    It reads the metrics of every checkpoint at once.
    """
    for folder in sorted(self._directory.glob('[0-9]*')):
      metrics = folder / 'metrics/metrics'
      if not folder.name.isdecimal() or not metrics.exists():
        continue
      if _readable(metrics):
        continue
      if self._read_only:
        raise ValueError(
          f'{folder}: damaged checkpoint; go on with training, which sets it'
          ' aside, or remove it'
        )
      logging.error('%s cannot be read; taking it out', folder)
      _rename_damaged(folder)
    if not self._read_only:
      _wait_for_all('checkpoints')

  def restore_weights(
    self, step: int, abstract: Mapping[str, Tree]
  ) -> dict[str, Tree]:
    """Restores parts of a state, leaving the rest (moments) on disk.

    Args:
      step: One of the steps on disk.
      abstract: Parts by name, e.g. {'params': ..., 'stats': ...}, with or
        without shardings.

    Raises:
      ValueError: If the checkpoint is of another model; names the tensors.
    """
    self._check(step, abstract)
    restored = self._manager.restore(
      step,
      args=ocp.args.Composite(
        state=_restore_args(dict(abstract), partial=True)
      ),
    )
    return restored['state']

  def has_part(self, step: int, name: str) -> bool:
    """Whether a part such as 'ema' was saved."""
    tree = self._manager.item_metadata(step)['state']
    return bool(tree.get(name))

  def _selection(self, step: int) -> float | None:
    metrics = self._manager.metrics(step)
    return metrics['selection'] if metrics else None

  def _check(self, step: int, parts: Mapping[str, Tree]) -> None:
    saved = _shapes(dict(self._manager.item_metadata(step)['state']))
    for name, tree in parts.items():
      wanted = _shapes({name: tree} if name else _as_dict(tree))
      differing = [
        f'{path} is {saved.get(path, "missing")}, the model wants {shape}'
        for path, shape in wanted.items()
        if saved.get(path) != shape
      ]
      if differing:
        raise _OtherModelError(
          f'{self._manager.directory}/{step}: checkpoint of another model:'
          f' {"; ".join(differing[:3])}'
          + (f'; and {len(differing) - 3} more' if len(differing) > 3 else '')
          + '. Use the configuration that it was written with'
          ' (config.json beside it)'
        )

  def reached_preemption(self, step: int) -> bool:
    """Whether this process, or any of a distributed run, is being stopped."""
    return self._terminated or self._manager.reached_preemption(step)

  def wait(self) -> None:
    """Blocks until everything saved is on disk; raises like `save`."""
    with self._explaining():
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Finishes writing and lets go of the folder; raises like `save`."""
    try:
      self.wait()
      self._empty_trash()
      self._manager.close()
    finally:
      if hasattr(self, '_previous'):
        signal.signal(signal.SIGTERM, self._previous)

  @contextlib.contextmanager
  def _explaining(self) -> Iterator[None]:
    """Says in one sentence that a checkpoint could not be written, and why."""
    try:
      yield
    # A full disk arrives as OSError or as tensorstore's ValueError.
    except (OSError, ValueError) as error:
      raise OSError(
        f'{self._directory}: a checkpoint could not be written'
        f' ({str(error).splitlines()[0]}); free space or mend the folder, and'
        ' the same command continues from'
        f' {_named(self._manager.all_steps(read=True))}'
      ) from error

  def _check_room(self, state: Tree) -> None:
    """Says that the disk is full before Orbax says it in a hundred lines."""
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    free = shutil.disk_usage(self._directory).free
    if jax.process_index() == 0 and free < needed:
      raise OSError(
        f'{self._directory}: {free / 1e6:.0f} MB free, a checkpoint takes'
        f' {needed / 1e6:.0f}; free some, and the same command continues from'
        f' {_named(self.all_steps())}'
      )

  def _empty_trash(self) -> None:
    if self._read_only or jax.process_index() != 0:
      return
    # Its children alone: Orbax may be moving another one in.
    for path in (self._directory / _TRASH).glob('*'):
      shutil.rmtree(path, ignore_errors=True)


class _OtherModelError(ValueError):
  """The checkpoint is whole, and of another model."""


def _readable(path: pathlib.Path) -> bool:
  try:
    json.loads(path.read_text())
  except (OSError, ValueError):
    return False
  return True


def _rename_damaged(folder: pathlib.Path) -> None:
  if jax.process_index() == 0:
    damaged = folder.with_name(f'damaged-{folder.name}')
    shutil.rmtree(damaged, ignore_errors=True)
    folder.rename(damaged)


def _wait_for_all(name: str) -> None:
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def _everywhere(fine: bool) -> bool:
  """Whether it is so on every process."""
  if jax.process_count() == 1:
    return fine
  return bool(np.all(multihost_utils.process_allgather(np.asarray(fine))))


def _named(steps) -> str:
  return f'step {max(steps)}' if steps else 'its start'


def _rank(metrics: Mapping[str, Any]) -> tuple[float, int]:
  """Of equal scores the first is the best, as in METHOD 8.5."""
  return metrics['selection'], -metrics['step']


def _restore_args(target: Tree, *, partial: bool = False):
  return ocp.args.PyTreeRestore(
    item=target,
    restore_args=ocp.checkpoint_utils.construct_restore_args(target),
    partial_restore=partial,
  )


def _as_dict(tree: Tree) -> dict:
  if isinstance(tree, dict):
    return tree
  return {
    name: getattr(tree, name)
    for name in tree.__dataclass_fields__  # a flax.struct dataclass
  }


def _shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    '/'.join(_key(k) for k in path): tuple(leaf.shape) for path, leaf in leaves
  }


def _key(key) -> str:
  for attribute in ('key', 'name', 'idx'):
    if hasattr(key, attribute):
      return str(getattr(key, attribute))
  return str(key)
