"""Saving and restoring a run, by Orbax.

A checkpoint is one atomic folder `<workdir>/checkpoints/<step>` that holds the
training state and the place in the data stream. Any mesh and any number of
processes can restore it. Kept are the newest few and the best by validation.
"""

from collections.abc import Mapping
import pathlib
import signal
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

Tree = Any


class Checkpointer:
  """Owns the checkpoints of one workdir.

  `save` is to be called before every step; it decides. It writes in the
  background, from a copy, so the state may be donated at once.
  """

  def __init__(
    self, directory: pathlib.Path, *, save_steps=None, keep_last: int = 2
  ):
    """Opens `directory`, creating it if need be.

    Args:
      directory: `<workdir>/checkpoints`.
      save_steps: Predicate on the step; None opens for reading only.
      keep_last: Newest checkpoints kept, beside the best.
    """
    read_only = save_steps is None
    policies = checkpoint_managers.AnyPreservationPolicy(
      [
        checkpoint_managers.LatestN(keep_last),
        checkpoint_managers.BestN(
          get_metric_fn=_rank,
          n=1,
        ),
      ]
    )
    self._manager = ocp.CheckpointManager(
      pathlib.Path(directory).absolute(),
      options=ocp.CheckpointManagerOptions(
        should_save_fn=lambda step, _: not read_only and save_steps(step),
        best_fn=_rank,
        preservation_policy=policies,
        # A save that falls due while another is written waits for it: which
        # checkpoints exist must not depend on the speed of the disk.
        enable_should_save_is_saving_in_progress_check=False,
        create=not read_only,
        read_only=read_only,
      ),
      item_handlers={
        'state': ocp.PyTreeCheckpointHandler(),
        'data': ocp.JsonCheckpointHandler(),
      },
    )
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
    data_state: Mapping[str, int],
    selection: float | None = None,
  ) -> bool:
    """Saves if due.

    Args:
      step: Updates done.
      state: Pytree of arrays.
      data_state: Place in the data stream.
      selection: Validation score, higher is better, if one was just measured.

    Returns:
      Whether it saved.
    """
    if self._manager.latest_step() == step:
      return False
    # Orbax copies to the host by np.asarray, which the training loop's
    # transfer guard refuses on accelerators.
    with jax.transfer_guard('allow'):
      return self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.PyTreeSave(state),
          data=ocp.args.JsonSave(dict(data_state)),
        ),
        metrics={'selection': selection, 'step': step},
        force=self._terminated,
      )

  def restore(
    self, step: int, abstract_state: Tree, shardings: Tree
  ) -> tuple[Tree, dict[str, int]]:
    """Restores a training state and the place in the data.

    Args:
      step: One of the steps on disk.
      abstract_state: From `jax.eval_shape`.
      shardings: From `sharding.state_shardings`; the mesh may differ from the
        one that saved.

    Raises:
      ValueError: If the checkpoint is of another model; names the tensors.
    """
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
      ),
    )
    return restored['state'], restored['data']

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
        raise ValueError(
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
    """Blocks until everything saved is on disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Finishes writing and lets go of the folder."""
    self._manager.close()
    if hasattr(self, '_previous'):
      signal.signal(signal.SIGTERM, self._previous)


def _rank(metrics: Mapping[str, Any]) -> tuple[float, int]:
  """Of equal scores the first is the best, as in METHOD 8.5."""
  selection = metrics['selection']
  return (float('-inf') if selection is None else selection, -metrics['step'])


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
