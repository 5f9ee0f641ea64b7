"""Our program, which ends itself at a step: the same on every machine.

  python killed_program.py LOOPS MOMENT SIGNAL --mode=train ...

The signal comes in the LOOPS-th turn of the training loop of this process (0:
before the first, once the workdir is claimed), at one of these moments:
  step   as soon as the turn begins
  save   when the next checkpoint has been handed over and is being written
  saved  when it has been written
"""

import os
import signal
import sys

from stormer_jax import main
from stormer_jax.runs import checkpoint, workdir


def end_at(turns: int, moment: str, number: signal.Signals) -> None:
  """Has the signal sent at that moment, once."""
  turn = 0
  sent = False
  should_save = checkpoint.Checkpointer.should_save
  save = checkpoint.Checkpointer.save
  claim = workdir.claim

  def end():
    nonlocal sent
    if not sent:
      sent = True
      os.kill(os.getpid(), number)

  def should_save_here(self, step):
    nonlocal turn
    turn += 1
    if moment == 'step' and turn >= turns:
      end()
    return should_save(self, step)

  def save_here(self, *args, **kwargs):
    saved = save(self, *args, **kwargs)
    if saved and turn >= turns and moment in ('save', 'saved'):
      if moment == 'saved':
        self.wait()
      end()
    return saved

  def claim_here(config, folder):
    claim(config, folder)
    if turns == 0:
      end()

  checkpoint.Checkpointer.should_save = should_save_here
  checkpoint.Checkpointer.save = save_here
  workdir.claim = claim_here


if __name__ == '__main__':
  end_at(int(sys.argv[1]), sys.argv[2], signal.Signals[sys.argv[3]])
  del sys.argv[1:4]
  main.run()
