"""A run's figures in Weights & Biases, beside those in the workdir.

Enter: a step and its figures. Leave: a W&B run of the workdir's name, on its
server, or with WANDB_MODE=offline in WORKDIR/wandb alone (`wandb sync` sends it
later). The workdir remembers the run's id, so that a training that was stopped
goes on in the same W&B run. W&B cannot forget: of steps done again after a stop
it keeps the figures of the first time, which are the same. Needs the extra
`wandb`.
"""

from collections.abc import Mapping
import pathlib
import secrets
from typing import Any

ID_FILE = 'wandb_run_id'


class WandbWriter:
  """Logs to one W&B run."""

  def __init__(
    self, workdir: pathlib.Path, project: str, config: Mapping[str, Any]
  ):
    """Begins the W&B run of a workdir, or goes on with it.

    Args:
      workdir: Folder of the run.
      project: W&B project, 'NAME' or 'ENTITY/NAME'.
      config: The configuration, to be shown there.

    Raises:
      ValueError: If the package is missing, or W&B refuses; names the fix.
    """
    try:
      import wandb
    except ModuleNotFoundError as error:
      raise ValueError(
        f'--wandb={project}: the package wandb is missing; pip install'
        " 'stormer-jax[wandb]', or leave --wandb out"
      ) from error
    self._teardown = wandb.teardown
    path = workdir / ID_FILE
    if not path.exists():
      path.write_text(secrets.token_hex(4) + '\n')
    entity, _, name = project.rpartition('/')
    try:
      self._run = wandb.init(
        entity=entity or None,
        project=name,
        id=path.read_text().strip(),
        name=workdir.resolve().name,
        resume='allow',
        dir=workdir,
        config=dict(config),
        settings=wandb.Settings(console='off', silent=True),
      )
    except wandb.errors.Error as error:
      raise ValueError(
        f'--wandb={project}: W&B says: {error}; with WANDB_MODE=offline the'
        ' figures stay in the workdir, for `wandb sync`'
      ) from error

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Adds figures of a step; steps must not go down."""
    self._run.log(dict(values), step=step)

  def close(self) -> None:
    """Waits until all is written or sent."""
    self._run.finish()
    # Offline, `finish` comes back before the file is whole.
    self._teardown()
